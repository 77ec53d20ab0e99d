#include "fathom/checkpoint/convert/hub_tensors.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/config/model_from_flags.h"

namespace fathom {
namespace {

class HubSource : public ConvertSource {
 public:
  HubSource(const ModelConfig& config, bool fp8) {
    config_path_ = "the model that the flags describe";
    config_ = config;
    config_->fp8 = fp8;
    raw_config_ = ModelConfigToJson(*config_);
    const std::vector<TensorInfo> tensors = HubTensors(config, fp8);
    const auto shards = PlanShards(tensors, SaveOptions().max_shard_size);
    for (size_t s = 0; s < shards.size(); ++s) {
      for (const size_t t : shards[s]) Add({tensors[t].name, tensors[t].dtype, tensors[t].shape, ShardFileName(s, shards.size())});
    }
  }
  bool is_orbax() const override { return false; }
  bool has_data() const override { return false; }
  void Read(size_t i, int64_t, int64_t, std::span<std::byte>) const override { FATHOM_CHECK(false, "{} read", tensor(i).name); }
};

}  // namespace

std::vector<TensorInfo> StoredTensors(const TensorFolder& folder) {
  std::vector<TensorInfo> tensors;
  for (const std::string& name : folder.names()) tensors.push_back({name, folder.Find(name)->dtype, folder.Find(name)->shape});
  return tensors;
}

bool IsFp8OnHub(const ModelConfig& config) { return config.family != ModelFamily::kV2; }

ModelConfig HubModel(const RunConfig& config) {
  ModelConfig model = ModelFromFlags(config);
  if (!config.Given("mtp_num_layers") && IsFp8OnHub(model))
    model.num_nextn_predict_layers = std::max<int64_t>(1, model.num_nextn_predict_layers);
  return model;
}

DType HubDType(const ParamSpec& param, bool fp8) {
  const HubStorage storage = param.facts().storage;
  if (storage == HubStorage::kFp8 && fp8) return DType::kF8E4M3;
  return storage == HubStorage::kF32 ? DType::kF32 : DType::kBF16;
}

std::vector<TensorInfo> HubTensors(const ModelConfig& config, bool fp8) {
  std::vector<TensorInfo> tensors;
  for (const ParamSpec& param : ModelSpec(config)) {
    tensors.push_back({param.name, HubDType(param, fp8), param.shape});
    if (tensors.back().dtype == DType::kF8E4M3)
      tensors.push_back({param.name + std::string(kScaleSuffix), DType::kF32, ScaleShape(param.shape)});
  }
  return tensors;
}

std::unique_ptr<ConvertSource> MakeHubSource(const ModelConfig& config, bool fp8) { return std::make_unique<HubSource>(config, fp8); }

}  // namespace fathom

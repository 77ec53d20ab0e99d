#include "fathom/infer/mapped_model.h"

#include <set>

#include "fathom/model/adapters.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {

int64_t CheckedCapacity(const ModelConfig& config, int64_t capacity) {
  if (capacity > config.max_position_embeddings) {
    Throw(ErrorCode::kUsage, "{} tokens of prompt and answer: the model's max_position_embeddings is {}", capacity,
          config.max_position_embeddings);
  }
  return capacity;
}

// Mapped; the module's embedding and head are the main model's unless it has and wants its own.
DecoderParams DraftingParams(const Checkpoint& checkpoint, const DraftOptions& drafts, const Sharding& sharding) {
  DecoderParams params = MapParams(checkpoint, [&](const ParamSpec& param) { return sharding.Computed(param); });
  if (!drafts.enabled) return params;
  CheckDraftingModule(params, checkpoint.dir().string());
  if (!drafts.own_head || params.mtp[0].shared_head_head.value.empty()) ShareEmbeddingAndHead(params);
  return params;
}

}  // namespace

void CheckDraftingModule(const DecoderParams& params, const std::string& model) {
  if (params.mtp.empty() || params.mtp[0].eh_proj.value.empty())
    Throw(ErrorCode::kUsage, "speculative=mtp: {} has no MTP module to draft with; leave the flag out", model);
}

MappedModel::MappedModel(Checkpoint checkpoint, DType compute, int64_t capacity, const DraftOptions& drafts, const LayerOptions& layers,
                         const std::filesystem::path& adapter, const Mesh& mesh)
    : checkpoint_(std::move(checkpoint)),
      config_(checkpoint_->config()),
      generation_(checkpoint_->generation()),
      drafts_(drafts),
      sharding_(config_, mesh),
      groups_{.tensor = mesh.comm(Axis::kTensor), .expert = mesh.comm(Axis::kExpert), .same_tokens = true},
      params_(DraftingParams(*checkpoint_, drafts, sharding_)),
      decoder_(sharding_.LocalConfig(), layers),
      compute_(compute),
      capacity_(CheckedCapacity(config_, capacity)) {
  decoder_.EnsurePositions(capacity);
  if (!adapter.empty()) AttachForInference(adapter, sharding_, params_);
}

MappedModel::MappedModel(const ModelConfig& config, DecoderParams params, DType compute, int64_t capacity, const LayerOptions& layers)
    : config_(config),
      sharding_(config_, {}),
      params_(std::move(params)),
      decoder_(config_, layers),
      compute_(compute),
      capacity_(CheckedCapacity(config_, capacity)) {
  decoder_.EnsurePositions(capacity);
}

int64_t MappedModel::WeightBytes() const {
  int64_t bytes = 0;
  auto params = params_;
  std::set<const std::byte*> seen;  // one memory under two names counts once
  for (const NamedWeight& w : ListParams(params)) {
    if (seen.insert(w.weight->value.view().raw()).second) bytes += w.weight->value.NumBytes() + w.weight->scale_inv.NumBytes();
  }
  return bytes;
}

}  // namespace fathom

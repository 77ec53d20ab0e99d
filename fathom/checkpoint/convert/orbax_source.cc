#include "fathom/checkpoint/convert/orbax_source.h"

#include <algorithm>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/checkpoint/convert/links.h"
#include "fathom/checkpoint/convert/orbax_state.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/checkpoint/orbax/ocdbt.h"
#include "fathom/checkpoint/orbax/orbax.h"
#include "fathom/kernels/elementwise/transpose.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

// Tensors as parts of MaxText's arrays.
class StackedSource : public ConvertSource {
 public:
  bool is_orbax() const override { return true; }

  void Read(size_t i, int64_t begin, int64_t count, std::span<std::byte> out) const override {
    const Part& part = parts_[i];
    const Stored& stored = arrays_[part.array];
    const MaxTextArray& array = stored.array;
    Shape origin = array.shape(), extent = origin;
    for (int a = 0; a < origin.rank(); ++a) origin[a] = 0;
    Select(array.expert_axis, part.expert, 1, origin, extent);
    Select(array.layer_axis, part.layer, 1, origin, extent);
    const int64_t unit = tensor(i).unit, rows = count / array.Columns();
    FATHOM_CHECK(begin % unit == 0 && count % unit == 0, "elements {} + {} of {}", begin, count, array.name);
    if (!array.rows.empty()) Select(array.RowAxis(), begin / unit, count / unit, origin, extent);
    if (!array.transposed || rows == 1) return stored.reader.Read(origin, extent, out);
    std::vector<std::byte> region(out.size());
    stored.reader.Read(origin, extent, region);
    const DType dtype = tensor(i).dtype;
    Transpose(ConstView(region.data(), dtype, {array.Columns(), rows}), View(out.data(), dtype, {rows, array.Columns()}));
  }

 protected:
  StackedSource(std::shared_ptr<const OrbaxCheckpoint> checkpoint, int64_t cache_bytes)
      : checkpoint_(std::move(checkpoint)), cache_bytes_(cache_bytes) {}
  const OrbaxCheckpoint& checkpoint() const { return *checkpoint_; }
  fs::path items() const { return checkpoint_->items(); }

  // A router bias may be stacked along the other axis (older releases). Throws Error(kInput): no array of this name, or one that does not
  // fit.
  void AddArray(MaxTextArray array, const std::string& name) {
    if (!checkpoint_->Has(name)) Throw(ErrorCode::kInput, "{}: array {} is missing", items().string(), name);
    ZarrReader reader = checkpoint_->Open(name);
    if (array.role == ParamRole::kRouterBias && array.layer_axis == 0 && reader.array().shape != array.shape()) array.layer_axis = 1;
    if (reader.array().shape != array.shape()) {
      Throw(ErrorCode::kInput, "{}: array {} has shape {}, the model's config says {}", items().string(), name,
            reader.array().shape.ToString(), array.shape().ToString());
    }
    const DType dtype = reader.array().dtype;
    if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
      Throw(ErrorCode::kInput, "{}: array {} holds {}; weights are float32, bfloat16 or float16", items().string(), name, DTypeName(dtype));
    }
    for (size_t t = 0; t < array.tensors.size(); ++t) {
      by_name_[array.tensors[t]] = {arrays_.size(), static_cast<int64_t>(t) / array.layers, static_cast<int64_t>(t) % array.layers};
    }
    arrays_.push_back({std::move(array), std::move(reader)});
  }

  // The tensors of all arrays added, in the model's order where reading them so decodes each chunk once, and the files they lie in.
  void Finish(const ModelConfig& config, bool shared_copies) {
    AddTensors(config, shared_copies);
    AddFiles();
  }

  std::set<std::string> StoredNames() const {
    std::set<std::string> names;
    for (const Stored& stored : arrays_) names.insert(stored.reader.name());
    return names;
  }

 private:
  struct Stored {
    MaxTextArray array;
    ZarrReader reader;
  };
  struct Part {
    size_t array;
    int64_t expert, layer;
  };

  static void Select(int axis, int64_t begin, int64_t count, Shape& origin, Shape& extent) {
    if (axis < 0) return;
    origin[axis] = begin;
    extent[axis] = count;
  }

  void AddTensors(const ModelConfig& config, bool shared_copies) {
    const ModelSpec spec(config);
    std::vector<std::pair<const ParamSpec*, Part>> list;
    for (const ParamSpec& param : spec) {
      if (param.is_copy() && !shared_copies) continue;
      const auto found = by_name_.find(spec.Original(param).name);
      if (found != by_name_.end()) list.emplace_back(&param, found->second);  // else reported
    }
    if (BytesOfSharedChunks() > cache_bytes_) {
      std::ranges::stable_sort(list, {}, [&](const auto& entry) { return std::pair(entry.second.array, FirstChunk(entry.second)); });
    }
    for (const auto& [param, part] : list) {
      const Stored& stored = arrays_[part.array];
      Add({param->name, stored.reader.array().dtype, param->shape, fs::absolute(items()).string(),
           stored.array.RowUnit() * stored.array.Columns()});
      parts_.push_back(part);
    }
  }

  int64_t FirstChunk(const Part& part) const {
    const Stored& stored = arrays_[part.array];
    const ZarrArray& zarr = stored.reader.array();
    const int e = stored.array.expert_axis, l = stored.array.layer_axis;
    return (e < 0 ? 0 : part.expert / zarr.chunk[e]) * (l < 0 ? 1 : zarr.GridSize(l)) + (l < 0 ? 0 : part.layer / zarr.chunk[l]);
  }

  // What must stay decoded so that reading layer by layer decodes no chunk twice: of each array a chunk that holds several tensors.
  int64_t BytesOfSharedChunks() const {
    int64_t bytes = 0;
    for (const Stored& stored : arrays_) {
      const ZarrArray& zarr = stored.reader.array();
      const int e = stored.array.expert_axis, l = stored.array.layer_axis;
      if ((e >= 0 && zarr.chunk[e] > 1) || (l >= 0 && zarr.chunk[l] > 1)) bytes += zarr.ChunkBytes();
    }
    return bytes;
  }

  void AddFiles() {
    std::vector<fs::path> paths = {items() / kOcdbtManifest, items() / "_METADATA"};
    for (const Stored& stored : arrays_) {
      const auto own = stored.reader.Files();
      paths.insert(paths.end(), own.begin(), own.end());
    }
    std::ranges::sort(paths);
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    std::erase_if(paths, [](const fs::path& path) { return !fs::exists(path); });
    for (const fs::path& path : paths) RequireInside(path, items());
    files_.insert(files_.end(), paths.begin(), paths.end());
  }

  std::shared_ptr<const OrbaxCheckpoint> checkpoint_;
  int64_t cache_bytes_;
  std::vector<Stored> arrays_;
  std::unordered_map<std::string, Part> by_name_;
  std::vector<Part> parts_;
};

// The moments of one slot: an array for each parameter, none for router biases.
class MomentsSource : public StackedSource {
 public:
  MomentsSource(std::shared_ptr<const OrbaxCheckpoint> checkpoint, const std::string& slot, const ModelConfig& config, int64_t cache_bytes)
      : StackedSource(std::move(checkpoint), cache_bytes) {
    for (MaxTextArray& array : MaxTextArrays(config, this->checkpoint().scanned())) {
      const std::string name = this->checkpoint().optimizer() + slot + ".params." + array.name;
      if (!LearnsByCounting(array.role)) AddArray(std::move(array), name);
    }
    Finish(config, false);
  }
};

class OrbaxSource : public StackedSource {
 public:
  OrbaxSource(const std::shared_ptr<const OrbaxCheckpoint>& checkpoint, const SourceOptions& options)
      : StackedSource(checkpoint, options.cache_bytes), report_(options.report) {
    ReadConfig(options);
    TakeMtpModulesOfCheckpoint();
    for (MaxTextArray& array : MaxTextArrays(config(), checkpoint->scanned())) AddReported(std::move(array));
    if (report_) ReportExtraArrays();
    Finish(config(), checkpoint->custom().value(kSharedCopies, Json(true)) != false);
    if (options.training_state && !checkpoint->optimizer().empty()) OpenState(checkpoint, options.cache_bytes);
  }

 private:
  void ReadConfig(const SourceOptions& options) {
    ignore_config_keys_ = options.ignore_config_keys;
    const auto path = FindConfigNear(items());
    config_path_ = path ? path->string() : (items().parent_path() / "config.json").string();
    if (path) {
      raw_config_ = ReadJsonFile(*path);
      companions_ = path->parent_path();
      files_.push_back(*path);
    } else {
      if (!options.model)
        Throw(ErrorCode::kInput, "{}: no config.json beside the checkpoint; give model_name= (and the flags that change it)",
              items().string());
      config_ = options.model();
      raw_config_ = ModelConfigToJson(*config_);
    }
  }

  // MaxText's flags often leave the MTP modules out; a config.json that promises more than there is, is a fault for checks.
  void TakeMtpModulesOfCheckpoint() {
    ModelConfig config = this->config();
    const int64_t found = checkpoint().num_mtp_modules(), promised = config.num_nextn_predict_layers;
    if (found == promised) return;
    const std::string text = fmt::format("{}: {} MTP modules in the checkpoint, {} in the config", items().string(), found, promised);
    if (report_ && !companions_.empty())
      report_(text);
    else
      spdlog::info("{}; the checkpoint decides", text);
    config.num_nextn_predict_layers = found;
    config_ = config;
    raw_config_["num_nextn_predict_layers"] = found;
  }

  void AddReported(MaxTextArray array) {
    try {
      const std::string name = NameOf(array);
      AddArray(std::move(array), name);
    } catch (const Error& error) {
      if (!report_) throw;
      report_(error.what());
    }
  }

  // Some parameters may be missing.
  std::string NameOf(const MaxTextArray& array) const {
    auto name = checkpoint().FindParameter(array.role, array.name);
    if (const auto other = StandIn(array.role); !name && other) {
      const std::string_view stand_in = FactsOf(*other).maxtext;
      spdlog::warn("{}: no {}; {} takes its place", items().string(), array.name, stand_in);
      name = checkpoint().FindParameter(*other, std::string(stand_in));
    }
    return name.value_or(checkpoint().prefix() + array.name);
  }

  void ReportExtraArrays() const {
    std::set<std::string> known = StoredNames();
    for (const MaxTextArray& array : MaxTextArrays(*config_, checkpoint().scanned())) known.insert(checkpoint().prefix() + array.name);
    for (const std::string& name : checkpoint().names()) {
      if (name.starts_with(checkpoint().prefix()) && !known.contains(name))
        report_(fmt::format("{}: array {} is not of this model", items().string(), name));
    }
  }

  // MaxText counts the steps that are done, fathom names the last of them.
  void OpenState(const std::shared_ptr<const OrbaxCheckpoint>& checkpoint, int64_t cache_bytes) {
    SourceState state;
    const auto count = [&](const std::string& array, int64_t least) {
      return CheckedCount(checkpoint->ReadNumber(array), least, "array " + array, items().string());
    };
    state.step = count(kStepArray, 1) - 1;
    state.values = checkpoint->custom().value(kTrainState, Json::object());
    if (!state.values.is_object()) Throw(ErrorCode::kInput, "{}: {} in custom_metadata is no object", items().string(), kTrainState);
    state.values[kOptimizerSteps] = count(checkpoint->optimizer() + "count", 0);
    for (const char* slot : {"mu", "nu"}) {
      auto source = std::make_unique<MomentsSource>(checkpoint, slot, config(), cache_bytes);
      files_.insert(files_.end(), source->files().begin(), source->files().end());
      state.slots[slot] = std::move(source);
    }
    state_ = std::make_unique<SourceState>(std::move(state));
  }

  std::function<void(const std::string&)> report_;
};

}  // namespace

std::unique_ptr<ConvertSource> OpenOrbaxSource(const fs::path& items, const SourceOptions& options) {
  const auto cache = std::make_shared<ChunkCache>(options.cache_bytes, options.scratch_dir);
  return std::make_unique<OrbaxSource>(std::make_shared<OrbaxCheckpoint>(items, cache), options);
}

}  // namespace fathom

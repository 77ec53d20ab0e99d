#include "fathom/checkpoint/convert_source.h"

#include <algorithm>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/checkpoint/links.h"
#include "fathom/checkpoint/ocdbt.h"
#include "fathom/checkpoint/save.h"
#include "fathom/kernels/transpose.h"

namespace fathom {

std::optional<size_t> ConvertSource::Find(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) return std::nullopt;
  return found->second;
}

void ConvertSource::Add(SourceTensor tensor) {
  index_[tensor.name] = tensors_.size();
  tensors_.push_back(std::move(tensor));
}

int64_t RowsOfPiece(int64_t piece_bytes, int64_t row_bytes, int64_t unit) {
  return std::max<int64_t>(1, piece_bytes / std::max<int64_t>(1, row_bytes) / unit) * unit;
}

const ModelConfig& ConvertSource::config() const {
  if (!config_ && raw_config_.is_null()) Throw(ErrorCode::kInput, "{}: absent; this conversion needs to know the model", config_path_);
  if (!config_) config_ = ParseModelConfig(raw_config_, config_path_);
  return *config_;
}

std::string ConvertSource::Where(size_t i) const {
  return fmt::format("{}: tensor {}", (companions_ / tensor(i).file).string(), tensor(i).name);
}

bool ConvertSource::has_fp8() const {
  return std::ranges::any_of(tensors_, [](const SourceTensor& t) { return t.dtype == DType::kF8E4M3; });
}

namespace {

namespace fs = std::filesystem;
// Chunks beyond this that hold parts of several tensors decide in which order the tensors are converted.
constexpr int64_t kLargeChunk = 64 << 20;

class HfSource : public ConvertSource {
 public:
  explicit HfSource(const fs::path& dir) : folder_(TensorFolder::Open(dir)) {
    companions_ = dir;
    for (const auto& file : folder_.files()) RequireInside(file->path(), dir);
    config_path_ = (dir / "config.json").string();
    if (fs::exists(dir / "config.json")) {
      raw_config_ = ReadJsonFile(dir / "config.json");
      files_.push_back(dir / "config.json");
    }
    for (const auto& file : folder_.files()) {
      files_.push_back(file->path());
      inputs_.push_back(std::make_shared<InputFile>(file->path()));
      for (const TensorEntry& entry : file->entries()) {
        Add({entry.name, entry.dtype, entry.shape, file->path().filename().string()});
        places_.push_back({inputs_.size() - 1, entry.begin});
      }
    }
  }
  bool is_orbax() const override { return false; }
  const TensorFolder* folder() const override { return &folder_; }
  void ReadRows(size_t i, int64_t row, int64_t rows, std::span<std::byte> out) const override {
    FATHOM_CHECK(std::ssize(out) == rows * tensor(i).RowBytes(), "{}", tensor(i).name);
    inputs_[places_[i].file]->ReadAt(places_[i].begin + static_cast<uint64_t>(row * tensor(i).RowBytes()), out);
  }

 private:
  struct Place {
    size_t file;
    uint64_t begin;
  };
  TensorFolder folder_;
  std::vector<std::shared_ptr<InputFile>> inputs_;
  std::vector<Place> places_;
};

class OrbaxSource : public ConvertSource {
 public:
  OrbaxSource(const fs::path& items, const SourceOptions& options)
      : checkpoint_(items, std::make_shared<ChunkCache>(options.cache_bytes, options.scratch_dir)), report_(options.report) {
    ReadConfig(options);
    TakeMtpModulesOfCheckpoint();
    for (MaxTextArray& array : MaxTextArrays(config(), checkpoint_.scanned())) AddReported(std::move(array));
    if (report_) ReportExtraArrays();
    AddTensors(config());
    AddFiles();
  }
  bool is_orbax() const override { return true; }

  void ReadRows(size_t i, int64_t row, int64_t rows, std::span<std::byte> out) const override {
    const Part& part = parts_[i];
    const Stored& stored = arrays_[part.array];
    const MaxTextArray& array = stored.array;
    Shape origin = array.shape(), extent = origin;
    for (int a = 0; a < origin.rank(); ++a) origin[a] = 0;
    Select(array.expert_axis, part.expert, 1, origin, extent);
    Select(array.layer_axis, part.layer, 1, origin, extent);
    if (!array.rows.empty()) {
      FATHOM_CHECK(row % array.RowUnit() == 0 && rows % array.RowUnit() == 0, "rows {} + {} of {}", row, rows, array.name);
      Select(array.RowAxis(), row / array.RowUnit(), rows / array.RowUnit(), origin, extent);
    }
    if (!array.transposed || rows == 1) return stored.reader.Read(origin, extent, out);
    std::vector<std::byte> region(out.size());
    stored.reader.Read(origin, extent, region);
    const DType dtype = tensor(i).dtype;
    Transpose(ConstView(region.data(), dtype, {array.Columns(), rows}), View(out.data(), dtype, {rows, array.Columns()}));
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

  void ReadConfig(const SourceOptions& options) {
    const auto path = FindConfigNear(checkpoint_.items());
    config_path_ = path ? path->string() : (checkpoint_.items().parent_path() / "config.json").string();
    if (path) {
      raw_config_ = ReadJsonFile(*path);
      companions_ = path->parent_path();
      files_.push_back(*path);
    } else {
      if (!options.model)
        Throw(ErrorCode::kInput, "{}: no config.json beside the checkpoint; give model_name= (and the flags that change it)",
              checkpoint_.items().string());
      config_ = options.model();
      raw_config_ = ModelConfigToJson(*config_);
    }
  }

  // MaxText's flags often leave the MTP modules out; a config.json that promises more than there is, is a fault for checks.
  void TakeMtpModulesOfCheckpoint() {
    ModelConfig config = this->config();
    const int64_t found = checkpoint_.num_mtp_modules(), promised = config.num_nextn_predict_layers;
    if (found == promised) return;
    const std::string text =
        fmt::format("{}: {} MTP modules in the checkpoint, {} in the config", checkpoint_.items().string(), found, promised);
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
      AddArray(std::move(array));
    } catch (const Error& error) {
      if (!report_) throw;
      report_(error.what());
    }
  }

  void ReportExtraArrays() const {
    std::set<std::string> known;
    for (const Stored& stored : arrays_) known.insert(stored.reader.name());
    for (const MaxTextArray& array : MaxTextArrays(*config_, checkpoint_.scanned())) known.insert(checkpoint_.prefix() + array.name);
    for (const std::string& name : checkpoint_.names()) {
      if (name.starts_with(checkpoint_.prefix()) && !known.contains(name))
        report_(fmt::format("{}: array {} is not of this model", checkpoint_.items().string(), name));
    }
  }

  // A router bias may be stacked along the other axis (older releases), and an MTP module may lack its own final norm.
  void AddArray(MaxTextArray array) {
    auto name = checkpoint_.FindParameter(array.name);
    if (!name && array.name.ends_with("_final_norm.scale")) {
      spdlog::warn("{}: no {}; decoder_norm takes its place", checkpoint_.items().string(), array.name);
      name = checkpoint_.FindParameter("decoder.decoder_norm.scale");
    }
    if (!name) Throw(ErrorCode::kInput, "{}: array {}{} is missing", checkpoint_.items().string(), checkpoint_.prefix(), array.name);
    ZarrReader reader = checkpoint_.Open(*name);
    if (array.router_bias && array.layer_axis == 0 && reader.array().shape != array.shape()) array.layer_axis = 1;
    if (reader.array().shape != array.shape()) {
      Throw(ErrorCode::kInput, "{}: array {} has shape {}, the model's config says {}", checkpoint_.items().string(), *name,
            reader.array().shape.ToString(), array.shape().ToString());
    }
    const DType dtype = reader.array().dtype;
    if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
      Throw(ErrorCode::kInput, "{}: array {} holds {}; weights are float32, bfloat16 or float16", checkpoint_.items().string(), *name,
            DTypeName(dtype));
    }
    for (size_t t = 0; t < array.tensors.size(); ++t) {
      by_name_[array.tensors[t]] = {arrays_.size(), static_cast<int64_t>(t) / array.layers, static_cast<int64_t>(t) % array.layers};
    }
    arrays_.push_back({std::move(array), std::move(reader)});
  }

  void AddTensors(const ModelConfig& config) {
    std::vector<std::pair<ExpectedTensor, Part>> list;
    for (const ExpectedTensor& tensor : ExpectedTensors(config)) {
      if (tensor.shared_copy && !checkpoint_.has_shared_copies()) continue;
      const bool embedding = tensor.name.ends_with("embed_tokens.weight");
      const auto found = by_name_.find(!tensor.shared_copy ? tensor.name : embedding ? "model.embed_tokens.weight" : "lm_head.weight");
      if (found != by_name_.end()) list.emplace_back(tensor, found->second);  // else reported
    }
    if (HasChunksOfManyTensors()) {
      std::ranges::stable_sort(list, {}, [&](const auto& entry) { return std::pair(entry.second.array, FirstChunk(entry.second)); });
    }
    for (const auto& [tensor, part] : list) {
      const Stored& stored = arrays_[part.array];
      Add({tensor.name, stored.reader.array().dtype, tensor.shape, fs::absolute(checkpoint_.items()).string(), stored.array.RowUnit()});
      parts_.push_back(part);
    }
  }

  int64_t FirstChunk(const Part& part) const {
    const Stored& stored = arrays_[part.array];
    const ZarrArray& zarr = stored.reader.array();
    const int e = stored.array.expert_axis, l = stored.array.layer_axis;
    return (e < 0 ? 0 : part.expert / zarr.chunk[e]) * (l < 0 ? 1 : zarr.GridSize(l)) + (l < 0 ? 0 : part.layer / zarr.chunk[l]);
  }

  bool HasChunksOfManyTensors() const {
    return std::ranges::any_of(arrays_, [](const Stored& stored) {
      const ZarrArray& zarr = stored.reader.array();
      const int e = stored.array.expert_axis, l = stored.array.layer_axis;
      return zarr.ChunkBytes() > kLargeChunk && ((e >= 0 && zarr.chunk[e] > 1) || (l >= 0 && zarr.chunk[l] > 1));
    });
  }

  void AddFiles() {
    std::vector<fs::path> paths = {checkpoint_.items() / kOcdbtManifest, checkpoint_.items() / "_METADATA"};
    for (const Stored& stored : arrays_) {
      const auto own = stored.reader.Files();
      paths.insert(paths.end(), own.begin(), own.end());
    }
    std::ranges::sort(paths);
    paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
    std::erase_if(paths, [](const fs::path& path) { return !fs::exists(path); });
    for (const fs::path& path : paths) RequireInside(path, checkpoint_.items());
    files_.insert(files_.end(), paths.begin(), paths.end());
  }

  OrbaxCheckpoint checkpoint_;
  std::function<void(const std::string&)> report_;
  std::vector<Stored> arrays_;
  std::unordered_map<std::string, Part> by_name_;
  std::vector<Part> parts_;
};

std::unique_ptr<ConvertSource> OpenKnown(const fs::path& path, const SourceOptions& options) {
  if (!fs::exists(path)) Throw(ErrorCode::kInput, "{}: no such folder", path.string());
  if (const auto items = FindOrbaxItems(path)) return std::make_unique<OrbaxSource>(*items, options);
  if (fs::exists(path / kSingleFile) || fs::exists(path / kIndexFile)) return std::make_unique<HfSource>(path);
  Throw(ErrorCode::kInput, "{}: neither a Hugging Face folder ({} or {}) nor an Orbax checkpoint (items/{} or items/_METADATA)",
        path.string(), kSingleFile, kIndexFile, kOcdbtManifest);
}

}  // namespace

std::unique_ptr<ConvertSource> OpenConvertSource(const fs::path& path, const SourceOptions& options) {
  auto source = OpenKnown(path, options);
  if (!source->companions().empty()) {
    for (const fs::path& file : CompanionFiles(source->companions())) RequireInside(file, source->companions());
  }
  return source;
}

}  // namespace fathom

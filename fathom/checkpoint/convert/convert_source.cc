#include "fathom/checkpoint/convert/convert_source.h"

#include <algorithm>

#include "fathom/base/error.h"
#include "fathom/checkpoint/convert/links.h"
#include "fathom/checkpoint/convert/orbax_source.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/checkpoint/orbax/ocdbt.h"
#include "fathom/checkpoint/orbax/orbax.h"

namespace fathom {

ConvertSource::ConvertSource() = default;
ConvertSource::~ConvertSource() = default;

std::optional<size_t> ConvertSource::Find(const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) return std::nullopt;
  return found->second;
}

void ConvertSource::Add(SourceTensor tensor) {
  index_[tensor.name] = tensors_.size();
  tensors_.push_back(std::move(tensor));
}

int64_t ColumnsOf(const Shape& shape) {
  const int64_t rows = shape.rank() < 2 ? 1 : shape[0];
  return rows == 0 ? 0 : shape.NumElements() / rows;
}

const ModelConfig& ConvertSource::config() const {
  if (!config_ && raw_config_.is_null()) Throw(ErrorCode::kInput, "{}: absent; this conversion needs to know the model", config_path_);
  if (!config_) config_ = ParseModelConfig(raw_config_, config_path_, ignore_config_keys_);
  return *config_;
}

std::string ConvertSource::Where(size_t i) const {
  return fmt::format("{}: tensor {}", (companions_ / tensor(i).file).string(), tensor(i).name);
}

bool ConvertSource::has_fp8() const {
  return std::ranges::any_of(tensors_, [](const SourceTensor& t) { return t.dtype == DType::kF8E4M3; });
}

int64_t SourceState::optimizer_steps() const {
  const auto found = values.find(kOptimizerSteps);
  if (found == values.end() || !found->is_number_integer()) Throw(ErrorCode::kInput, "the training state has no {}", kOptimizerSteps);
  return found->get<int64_t>();
}

Json SourceState::OwnValues() const {
  Json own = values;
  for (const char* name : {"format", "step", kOptimizerSteps}) own.erase(name);
  return own;
}

namespace {

namespace fs = std::filesystem;

// Tensors as they lie in safetensors files.
class FilesSource : public ConvertSource {
 public:
  bool is_orbax() const override { return false; }
  void Read(size_t i, int64_t begin, int64_t count, std::span<std::byte> out) const override {
    const int64_t width = DTypeSize(tensor(i).dtype);
    FATHOM_CHECK(std::ssize(out) == count * width, "{}", tensor(i).name);
    inputs_[places_[i].file]->ReadAt(places_[i].begin + static_cast<uint64_t>(begin * width), out);
  }

 protected:
  void AddFile(const SafetensorsFile& file) {
    RequireInside(file.path(), companions_);
    files_.push_back(file.path());
    inputs_.push_back(std::make_shared<InputFile>(file.path()));
    for (const TensorEntry& entry : file.entries()) {
      Add({entry.name, entry.dtype, entry.shape, file.path().filename().string()});
      places_.push_back({inputs_.size() - 1, entry.begin});
    }
  }

 private:
  struct Place {
    size_t file;
    uint64_t begin;
  };
  std::vector<std::shared_ptr<InputFile>> inputs_;
  std::vector<Place> places_;
};

// One slot of fathom's own training state.
class SlotSource : public FilesSource {
 public:
  explicit SlotSource(const SafetensorsFile& file) {
    companions_ = file.path().parent_path();
    AddFile(file);
  }
};

class HfSource : public FilesSource {
 public:
  HfSource(const fs::path& dir, const SourceOptions& options) : folder_(TensorFolder::Open(dir)) {
    companions_ = dir;
    ignore_config_keys_ = options.ignore_config_keys;
    config_path_ = (dir / "config.json").string();
    if (fs::exists(dir / "config.json")) {
      raw_config_ = ReadJsonFile(dir / "config.json");
      files_.push_back(dir / "config.json");
    }
    for (const auto& file : folder_.files()) AddFile(*file);
    if (options.training_state && HasTrainState(dir)) OpenState(dir);
  }
  const TensorFolder* folder() const override { return &folder_; }

 private:
  void OpenState(const fs::path& dir) {
    const SavedTrainState saved = SavedTrainState::Open(dir);
    state_ = std::make_unique<SourceState>(SourceState{saved.step(), saved.values(), {}});
    files_.push_back(saved.file());
    if (!saved.slots().empty() && !(saved.slots().size() == 2 && saved.HasSlot("mu") && saved.HasSlot("nu")))
      Throw(ErrorCode::kInput, "{}: expected are mu.safetensors and nu.safetensors, or neither", saved.file().parent_path().string());
    for (const auto& [name, file] : saved.slots()) {
      auto& slot = state_->slots[name] = std::make_unique<SlotSource>(*file);
      files_.insert(files_.end(), slot->files().begin(), slot->files().end());
    }
  }

  TensorFolder folder_;
};

std::unique_ptr<ConvertSource> OpenKnown(const fs::path& path, const SourceOptions& options) {
  if (!fs::exists(path)) Throw(ErrorCode::kInput, "{}: no such folder", path.string());
  RefuseRunFolder(path);
  if (const auto items = FindOrbaxItems(path)) return OpenOrbaxSource(*items, options);
  if (fs::exists(path / kSingleFile) || fs::exists(path / kIndexFile)) return std::make_unique<HfSource>(path, options);
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

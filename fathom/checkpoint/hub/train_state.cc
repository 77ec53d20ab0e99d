#include "fathom/checkpoint/hub/train_state.h"

#include <algorithm>
#include <charconv>

#include "fathom/base/error.h"
#include "fathom/checkpoint/hub/staged_folder.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr int kFormat = 1;
constexpr const char* kStateFile = "state.json";

// The step that a folder's name says; nullopt unless it is written as StepFolder writes it.
std::optional<int64_t> StepOfName(const std::string& name) {
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0 || std::to_string(step) != name) return std::nullopt;
  return step;
}

int64_t BytesOf(const std::vector<TensorFile>& files) {
  int64_t bytes = 0;
  for (const TensorFile& file : files) {
    for (const SavedTensor& t : file.tensors) bytes += t.info.NumBytes();
  }
  return bytes;
}

// ".120.partial" and ".120.removed", left by a killed process.
bool IsLeftover(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (!name.starts_with('.') || dot == 0 || (name.substr(dot) != ".partial" && name.substr(dot) != ".removed")) return false;
  return StepOfName(name.substr(1, dot - 1)).has_value();
}

int64_t CheckedStep(const Json& values, const char* name, const fs::path& file) {
  const auto found = values.find(name);
  if (found == values.end() || !found->is_number_integer()) Throw(ErrorCode::kInput, "{}: no {} in it", file.string(), name);
  const bool fits = *found <= kMostSteps;  // beyond int64 too
  if (!fits) Throw(ErrorCode::kInput, "{}: {} is {}, allowed is 0 to {}", file.string(), name, found->dump(), kMostSteps);
  return CheckedCount(found->get<int64_t>(), 0, name, file.string());
}

}  // namespace

int64_t CheckedCount(int64_t value, int64_t least, const std::string& what, const std::string& where) {
  if (value >= least && value <= kMostSteps) return value;
  Throw(ErrorCode::kInput, "{}: {} is {}, allowed is {} to {}", where, what, value, least, kMostSteps);
}

fs::path TrainStateFolder(const fs::path& folder) { return folder / "train_state"; }

bool HasTrainState(const fs::path& folder) { return fs::exists(TrainStateFolder(folder) / kStateFile); }

fs::path StepFolder(const fs::path& checkpoints, int64_t step) { return checkpoints / std::to_string(step); }

namespace {

std::vector<TensorFile> FilesOf(const std::vector<SavedTensor>& params, const TrainState& state, const SaveOptions& options) {
  std::vector<TensorFile> files;
  if (options.adapter)
    files.push_back({kAdapterFile, params});
  else
    files = ModelTensorFiles(params, options.max_shard_size);
  for (const auto& [slot, tensors] : state.slots) files.push_back({TrainStateFolder("") / (slot + ".safetensors"), tensors});
  return files;
}

void WriteSmallFiles(const fs::path& dir, const Json& config, const std::vector<SavedTensor>& params, const TrainState& state,
                     const SaveOptions& options) {
  if (options.adapter)
    WriteFileAtomically(dir / kAdapterConfig, JsonText(config, 2));
  else
    WriteModelJson(dir, config, params, options.max_shard_size);
  CopyFiles(options.companions, dir);
  WriteTrainStateFile(dir, state.step, state.values);
}

}  // namespace

void SaveTrainCheckpoint(const fs::path& checkpoints, const Json& config, const std::vector<SavedTensor>& params, const TrainState& state,
                         const SaveOptions& options, const SaveRanks& ranks) {
  const fs::path target = StepFolder(checkpoints, state.step);
  const std::vector<TensorFile> files = FilesOf(params, state, options);
  std::optional<StagedFolder> stage;
  if (ranks.first) {
    CheckFreeSpace(checkpoints, BytesOf(files));
    stage.emplace(target, true);
    fs::create_directory(TrainStateFolder(stage->path()));
  }
  if (!ranks.meet) {
    WriteTensorFiles(stage->path(), files, SafetensorsWriter::Share::kWhole);
  } else {
    if (stage) WriteTensorFiles(stage->path(), files, SafetensorsWriter::Share::kHeader);
    ranks.meet();
    WriteTensorFiles(StagedFolder::PathFor(target), files, SafetensorsWriter::Share::kPart);
    ranks.meet();
  }
  if (stage) {
    WriteSmallFiles(stage->path(), config, params, state, options);
    stage->Commit();
  }
  if (ranks.meet) ranks.meet();
}

void WriteTrainStateFile(const fs::path& folder, int64_t step, Json values) {
  values["format"] = kFormat;
  values["step"] = step;
  WriteFileAtomically(TrainStateFolder(folder) / kStateFile, JsonText(values));
}

std::vector<int64_t> CompleteSteps(const fs::path& checkpoints) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator it(checkpoints, error), end; !error && it != end; it.increment(error)) {
    const auto step = StepOfName(it->path().filename().string());
    if (step && HasTrainState(it->path())) steps.push_back(*step);
  }
  std::ranges::sort(steps);
  return steps;
}

std::optional<int64_t> LatestStep(const fs::path& checkpoints) {
  const auto steps = CompleteSteps(checkpoints);
  return steps.empty() ? std::nullopt : std::optional(steps.back());
}

void RefuseRunFolder(const fs::path& dir) {
  for (const fs::path& checkpoints : {dir / "checkpoints", dir}) {
    if (const auto step = LatestStep(checkpoints)) {
      Throw(ErrorCode::kInput, "{}: holds the checkpoints of a run; name one of them, the newest is {}", dir.string(),
            StepFolder(checkpoints, *step).string());
    }
  }
}

void PruneCheckpoints(const fs::path& checkpoints, int64_t keep) {
  std::vector<int64_t> steps = CompleteSteps(checkpoints);
  if (keep >= 1 && std::ssize(steps) > keep) {
    steps.resize(steps.size() - static_cast<size_t>(keep));
    for (const int64_t step : steps) RemoveFolder(StepFolder(checkpoints, step));
  }
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (fs::directory_iterator it(checkpoints, error), end; !error && it != end; it.increment(error)) {
    if (IsLeftover(it->path().filename().string())) leftovers.push_back(it->path());
  }
  for (const fs::path& leftover : leftovers) fs::remove_all(leftover, error);
}

SavedTrainState SavedTrainState::Open(const fs::path& step_folder) {
  SavedTrainState saved;
  saved.dir_ = TrainStateFolder(step_folder);
  const fs::path file = saved.file();
  saved.values_ = ReadJsonFile(file);
  const Json& values = saved.values_;
  if (!values.is_object() || !values.contains("format") || values["format"] != kFormat) {
    Throw(ErrorCode::kInput, "{}: not a training state of format {}", file.string(), kFormat);
  }
  saved.step_ = CheckedStep(values, "step", file);
  if (values.contains(kOptimizerSteps)) CheckedStep(values, kOptimizerSteps, file);
  for (const auto& entry : fs::directory_iterator(saved.dir_)) {
    if (entry.path().extension() == ".safetensors") saved.slots_[entry.path().stem().string()] = SafetensorsFile::Open(entry.path());
  }
  return saved;
}

fs::path SavedTrainState::file() const { return dir_ / kStateFile; }

bool SavedTrainState::Has(const std::string& slot, const std::string& name) const {
  const auto it = slots_.find(slot);
  return it != slots_.end() && it->second->Find(name) != nullptr;
}

Tensor SavedTrainState::Get(const std::string& slot, const std::string& name, DType dtype, const Shape& shape) const {
  if (!HasSlot(slot)) Throw(ErrorCode::kInput, "{}: {}.safetensors is missing", dir_.string(), slot);
  const SafetensorsFile& file = *slots_.at(slot);
  const TensorEntry* entry = file.Find(name);
  if (entry == nullptr) Throw(ErrorCode::kInput, "{}: tensor {} is missing", file.path().string(), name);
  if (entry->dtype != dtype || entry->shape != shape) {
    Throw(ErrorCode::kInput, "{}: tensor {} is {} {}, expected {} {}", file.path().string(), name, DTypeName(entry->dtype),
          entry->shape.ToString(), DTypeName(dtype), shape.ToString());
  }
  return file.Get(*entry);
}

}  // namespace fathom

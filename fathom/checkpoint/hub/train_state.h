// Checkpoints of a training run: <checkpoints>/<step>/ is a Hugging Face checkpoint with a train_state/ folder for resuming.
//
//   <step>/config.json, model*.safetensors, tokenizer files ...
//   <step>/train_state/state.json      {"format": 1, "step": N, ...}: what the run needs besides tensors
//   <step>/train_state/<slot>.safetensors   "mu", "nu": the optimizer's moments under the parameters' names
//
// A step's folder gets its name when all of it is on disk, so one that bears a number is complete.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fathom/checkpoint/hub/save.h"

namespace fathom {

inline constexpr const char* kOptimizerSteps = "optimizer_steps";  // in values: updates that the optimizer has applied

inline constexpr const char* kOptimizerName = "optimizer";  // in values, unless it is AdamW or SGD: of which the moments are
inline constexpr int64_t kMostSteps = int64_t{1} << 53;     // a JSON number that every reader keeps, and far from where counting overflows

// value, if it is from least to kMostSteps; else throws Error(kInput): "WHERE: WHAT is VALUE, allowed is ...".
int64_t CheckedCount(int64_t value, int64_t least, const std::string& what, const std::string& where);

struct TrainState {
  int64_t step = 0;              // the 0-based step that is complete
  Json values = Json::object();  // schedule, RNG seed, data cursor, flags: the run's own; "format" and "step" are taken
  std::map<std::string, std::vector<SavedTensor>> slots;  // optimizer tensors by slot name
};

// <folder>/train_state.
std::filesystem::path TrainStateFolder(const std::filesystem::path& folder);
bool HasTrainState(const std::filesystem::path& folder);

// <checkpoints>/<step>, whether it exists or not.
std::filesystem::path StepFolder(const std::filesystem::path& checkpoints, int64_t step);

// Writes <checkpoints>/<state.step>/; an older folder of that name is replaced in one step. Throws Error(kResource); nothing half-written
// stays. Several processes write their parts at once: the folder gets its name when all have said that theirs are on disk, and all return
// then.
void SaveTrainCheckpoint(const std::filesystem::path& checkpoints, const Json& config, const std::vector<SavedTensor>& params,
                         const TrainState& state, const SaveOptions& options, const SaveRanks& ranks = {});

// Writes state.json into <folder>/train_state, synced. Throws Error(kResource).
void WriteTrainStateFile(const std::filesystem::path& folder, int64_t step, Json values);

// Steps whose folder is complete, ascending; hidden leftovers, other names and folders without a train_state are not among them. Empty if
// checkpoints does not exist.
std::vector<int64_t> CompleteSteps(const std::filesystem::path& checkpoints);
std::optional<int64_t> LatestStep(const std::filesystem::path& checkpoints);

// Throws Error(kInput) naming the newest complete checkpoint if dir is a run's folder, or the folder of its checkpoints, instead of one of
// them.
void RefuseRunFolder(const std::filesystem::path& dir);

// Removes all but the `keep` latest complete steps, and what killed processes left behind. keep < 1 removes no step. Throws
// Error(kResource).
void PruneCheckpoints(const std::filesystem::path& checkpoints, int64_t keep);

// The train_state of one step, mapped.
class SavedTrainState {
 public:
  // step_folder: <checkpoints>/<step>. Throws Error(kInput): absent, broken, another format.
  static SavedTrainState Open(const std::filesystem::path& step_folder);

  int64_t step() const { return step_; }
  const Json& values() const { return values_; }  // as saved
  std::filesystem::path file() const;             // state.json
  const std::map<std::string, std::shared_ptr<const SafetensorsFile>>& slots() const { return slots_; }
  bool HasSlot(const std::string& slot) const { return slots_.contains(slot); }
  bool Has(const std::string& slot, const std::string& name) const;
  // Throws Error(kInput): no such slot or tensor, another dtype or shape than the expected.
  Tensor Get(const std::string& slot, const std::string& name, DType dtype, const Shape& shape) const;

 private:
  std::filesystem::path dir_;
  int64_t step_ = 0;
  Json values_;
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> slots_;
};

}  // namespace fathom

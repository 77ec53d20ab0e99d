// load_parameters_path and load_full_state_path may name an Orbax checkpoint, while the commands read Hugging Face folders.
#pragma once

#include <optional>

#include "fathom/base/scratch_folder.h"
#include "fathom/checkpoint/convert/convert.h"
#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/config/run_config.h"

namespace fathom {

// Checkpoint::Open with what the flags say about it: ignore_config_keys, FollowGivenFlags, CheckModelName.
Checkpoint OpenCheckpoint(const RunConfig& config, const std::filesystem::path& dir);
// The one that it is compared with: the flags of the model do not speak of it.
Checkpoint OpenReference(const RunConfig& config, const std::filesystem::path& dir);

// For a plan: nothing lies at this path, and the flags say which model would (model_name=). Says so in a line.
bool IsPlannedByName(const RunConfig& config, const std::filesystem::path& given);

class ReadableCheckpoint {
 public:
  // If load_parameters_path or load_full_state_path names an Orbax checkpoint: converts it into a folder of its own below the system's one
  // for temporary files (TMPDIR) that goes with the process, with ConvertOptions' memory, and sets the flag to that folder. `plan` gets one
  // with the sizes alone (or the flag emptied, where IsPlannedByName), `train` no copy where the run goes on from a step of its own. Throws
  // Error as Convert does, and Error(kInput) for a file or a run's folder.
  ReadableCheckpoint(const std::string& command, RunConfig& config);

  // The same for the checkpoint that another flag names: dir() is its folder, or the copy's.
  ReadableCheckpoint(const RunConfig& config, const std::string& flag);
  const std::filesystem::path& dir() const { return dir_; }

 private:
  // A folder of its own for the copy that these options make of what they read.
  ConvertOptions CopyOf(const RunConfig& config, const std::filesystem::path& given);

  std::filesystem::path dir_;
  std::optional<ScratchFolder> folder_;
};

}  // namespace fathom

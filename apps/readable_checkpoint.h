// load_parameters_path may name an Orbax checkpoint, while the commands read Hugging Face folders.
#pragma once

#include <filesystem>

#include "fathom/config/run_config.h"

namespace fathom {

class ReadableCheckpoint {
 public:
  // If load_parameters_path names an Orbax checkpoint: converts it into a folder of its own below the system's one for temporary files
  // (TMPDIR), with ConvertOptions' memory, and sets the flag to that folder. Throws Error as Convert does.
  explicit ReadableCheckpoint(RunConfig& config);
  ~ReadableCheckpoint();  // removes the folder
  ReadableCheckpoint(const ReadableCheckpoint&) = delete;
  ReadableCheckpoint& operator=(const ReadableCheckpoint&) = delete;

 private:
  std::filesystem::path folder_;
};

}  // namespace fathom

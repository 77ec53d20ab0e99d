// Is a checkpoint on disk whole and sane?
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/checkpoint/check/compare_checkpoints.h"

namespace fathom {

enum class Severity {
  kNote,       // worth knowing, not a fault
  kFault,      // the files can be read, but what is in them is wrong: NaN, a scale that is no scale, a changed byte
  kMalformed,  // the files are not a checkpoint of the model that config.json describes
};

struct Finding {
  Severity severity = Severity::kNote;
  std::string text;  // one line: file, tensor, found, expected
};

struct CheckFilesOptions {
  std::filesystem::path input;
  std::filesystem::path manifest;                    // empty: none; absent: written (unless malformed); present: compared
  std::filesystem::path against;                     // empty: none; another checkpoint, in any format
  int64_t memory_limit = int64_t{1} << 30;           // bytes that may be resident for reading
  std::vector<std::string> ignore_config_keys = {};  // as OpenOptions has them
  std::function<ModelConfig()> model = {};           // the flags' model, for an Orbax checkpoint without config.json
};

struct FilesReport {
  std::vector<Finding> findings;
  int64_t tensors = 0, bytes = 0;
  bool manifest_written = false;
  std::vector<TensorComparison> comparisons;  // with `against`

  int64_t Count(Severity severity) const;
  int ExitCode() const;  // 0 sound, 1 a fault, 3 malformed
};

// Reports, never throws, what is wrong with `input`; throws Error(kInput) for a manifest or `against` that cannot be read, Error(kResource)
// for a manifest that cannot be written. Checked: files and index (TensorFolder::Open) or an Orbax checkpoint's database and arrays,
// tensors against config.json (CompareWithConfig), NaN and infinity in every tensor, scales (finite, positive), router biases, hashes, the
// other checkpoint.
FilesReport CheckFiles(const CheckFilesOptions& options);

}  // namespace fathom

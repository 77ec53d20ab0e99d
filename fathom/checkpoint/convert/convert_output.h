// What a conversion writes: a list of files ("units"), each of them whole before the next run may skip it, then what makes a checkpoint of
// them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fathom/checkpoint/convert/convert_jobs.h"
#include "fathom/checkpoint/convert/convert_tensors.h"
#include "fathom/checkpoint/convert/orbax_arrays.h"

namespace fathom {

struct OutputUnit {
  std::string name;
  int64_t bytes = 0;  // at most
};

// done(bytes): that much more of a unit has been converted. From any thread.
using ConvertProgress = std::function<void(int64_t)>;

class ConvertOutput {
 public:
  virtual ~ConvertOutput() = default;
  const std::vector<OutputUnit>& units() const { return units_; }
  // Writes unit u into folder and syncs it. The record is what Finish needs to know of it, and kNotReproduced if it was quantised. Throws
  // Error.
  virtual Json WriteUnit(size_t u, const std::filesystem::path& folder, const ConvertProgress& done) = 0;
  // True if the unit that the record describes still lies in folder.
  virtual bool StillThere(size_t u, const std::filesystem::path& folder, const Json& record) const = 0;
  // All units are written: index, metadata, config. Records by unit name.
  virtual void Finish(const std::filesystem::path& folder, const std::map<std::string, Json>& records) = 0;

 protected:
  std::vector<OutputUnit> units_;
};

// In a unit's record: how many elements FP8 does not give back.
inline constexpr const char* kNotReproduced = "not_reproduced";

struct HfOutputOptions {
  DTypeOptions dtype;
  int64_t max_shard_size = 0;  // 0: the source's own files where it has some, else 5 GB
  int64_t memory = 512 << 20;  // for buffers
};
std::unique_ptr<ConvertOutput> MakeHfOutput(const ConvertSource& source, const HfOutputOptions& options);

struct OrbaxOutputOptions {
  DTypeOptions dtype;
  OrbaxArrayOptions arrays;
  bool scan_layers = true, ocdbt = true;
  int64_t target_file_size = int64_t{2} << 30;
  int64_t memory = 512 << 20;
  uint64_t time = 0;     // ns since 1970, for the metadata
  std::string identity;  // of the work: what the database's random names are made of, so that a second run gives the same bytes
};
// Writes items/, _CHECKPOINT_METADATA, config.json and companions into the folder (a step). Throws Error(kInput): a tensor that the model
// needs is missing or has another shape.
std::unique_ptr<ConvertOutput> MakeOrbaxOutput(const ConvertSource& source, const OrbaxOutputOptions& options);

// config.json of the output: without or with quantization_config, with the dtype of most weights.
Json ConvertedConfig(const ConvertSource& source, const std::vector<TensorTask>& tasks, const DTypeOptions& options);

}  // namespace fathom

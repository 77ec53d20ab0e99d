// `check golden`: every array of a golden folder that the engine can compute, computed and compared (the folder's README says what
// each array is; docs/numerics.md why the bounds are what they are).
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "fathom/base/json.h"
#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fathom/model/decoder.h"

namespace fathom {

// Arrays by name. F32, F64, I64 or U8.
using GoldenArrays = std::map<std::string, Tensor>;

struct GoldenCase {
  explicit GoldenCase(Checkpoint opened);  // of the golden folder
  bool Has(const std::string& name) const { return expected->Find(name) != nullptr; }
  std::vector<int32_t> Ids(const std::string& name) const;  // throws Error(kInput) for an id outside the vocabulary
  Tensor Expected(const std::string& name) const;           // throws Error(kInput) if absent
  Shape ShapeOf(const std::string& name) const { return Expected(name).shape(); }

  std::filesystem::path dir;
  Checkpoint checkpoint;
  std::shared_ptr<const SafetensorsFile> expected;
  Json info;            // golden.json
  std::string prefix;   // "exact." in an FP8 folder: its weights are used in place, unrounded
  LayerOptions layers;  // how it is computed; the defaults
};

// What the engine gives, under the golden's names. compute: F32 (the bounds are for it) or BF16.
GoldenArrays ComputeGolden(const GoldenCase& golden, DType compute);

// Bounds of hidden states, of their largest value, and of logits.
inline constexpr double kHiddenBound = 1e-4, kKlBound = 1e-9;

// One compared array.
struct GoldenRow {
  std::string name, measure;        // "max abs", "relative L2", "KL" ...
  double max_abs = 0, error = 0;    // error is what the measure names
  double bound = 0, reference = 0;  // reference: transformers' own float32 error, 0 if not recorded
  bool ok = false;
};
// A row per comparison, and one that is not ok for each array of the folder that the engine owes and `got` lacks.
std::vector<GoldenRow> CompareGolden(const GoldenCase& golden, const GoldenArrays& got);

}  // namespace fathom

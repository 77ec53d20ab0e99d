// Two checkpoints, tensor by tensor, also in different formats: FP8, BF16, F32, a Hugging Face folder, Orbax scanned or not.
#pragma once

#include <string>
#include <vector>

#include "fathom/checkpoint/convert_source.h"
#include "fathom/kernels/value_checks.h"

namespace fathom {

enum class Verdict {
  kSameBits,   // same dtype, same bytes (and scales)
  kRounded,    // different dtypes or scale formats, values as near as those allow: cosine of at least kSameTensorCosine
  kDifferent,  // same dtype but other bytes, other shapes, or values that are not the same tensor
  kOnlyInFirst,
  kOnlyInSecond
};
inline constexpr double kSameTensorCosine = 0.99;  // block FP8 of a normal matrix has 0.9995

struct TensorComparison {
  std::string name, first, second;  // what each has: "F8_E4M3 [2, 3]"; empty: nothing
  Verdict verdict = Verdict::kSameBits;
  Difference difference;  // of the values; zero unless both have the same shape and the bits differ
};

// Every weight of both under the hub's names (a weight's scales are part of it), in the order of the first. Reads about piece_bytes of each
// per thread at a time. Throws Error(kInput) naming file and tensor: unreadable, FP8 without scales, scales without a matrix.
std::vector<TensorComparison> CompareCheckpoints(const ConvertSource& first, const ConvertSource& second, int64_t piece_bytes);

}  // namespace fathom

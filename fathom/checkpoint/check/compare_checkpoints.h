// Two checkpoints, tensor by tensor, also in different formats: FP8, BF16, F32, a Hugging Face folder, Orbax scanned or not.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "fathom/checkpoint/convert/convert_source.h"
#include "fathom/kernels/elementwise/value_checks.h"

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

// Every weight of both under the hub's names (a weight's scales are part of it), in the order of the first, each compared when asked for:
// by somebody who has just read it, so that what was decoded for that is still in memory. The sources outlive it.
class CheckpointComparison {
 public:
  // Reads about piece_bytes of each side at a time in each of `workers` threads. Throws Error(kInput): FP8 without scales, scales without a
  // matrix.
  CheckpointComparison(const ConvertSource& first, const ConvertSource& second, int64_t piece_bytes, int workers);
  ~CheckpointComparison();

  const std::vector<TensorComparison>& results() const { return results_; }
  std::optional<size_t> Find(const std::string& name) const;  // in results
  // Compares weight i, as the worker of this number. Throws Error(kInput) naming file and tensor: unreadable.
  void Compare(size_t i, int worker);
  // Where the second checkpoint has weight i in the order in which it is best read; those that it lacks come first.
  size_t PlaceInSecond(size_t i) const;

 private:
  class Side;
  class Comparer;
  std::unique_ptr<const Side> first_, second_;
  std::vector<std::unique_ptr<Comparer>> comparers_;  // they hold scratch
  std::vector<TensorComparison> results_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace fathom

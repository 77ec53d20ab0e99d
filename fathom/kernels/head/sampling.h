// The next token's distribution (MaxText's decode_sampling_strategy) and draws from it.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/arena.h"

namespace fathom {

enum class SamplingStrategy { kGreedy, kWeighted, kTopK, kNucleus, kComposite };

//   kGreedy:    the largest logit, ties to the lower index
//   kWeighted:  softmax(logits / temperature)
//   kTopK:      the same over the top_k largest logits (ties to the lower index)
//   kNucleus:   over the logits, from the largest down, until the sum of softmax(logits), without temperature, reaches top_p; logits equal
//               to the last of these are kept too. top_p = 0 keeps the largest, above 1 all; the sums are exact to about 1e-7.
//   kComposite: top_k, then the nucleus of what is left (softmax over it), then temperature, at least 1e-6
struct SamplingRule {
  SamplingStrategy strategy = SamplingStrategy::kGreedy;
  double temperature = 1;  // > 0 (kWeighted, kTopK, kNucleus)
  int64_t top_k = 0;       // >= 1 (kTopK, kComposite)
  double top_p = 1;        // 0..1 (kNucleus, kComposite)
};

// logits [V] -> overwrites probabilities [V], which sum to 1 up to rounding; 0: never drawn. NaN counts as -inf.
// kTopK and kComposite take V + top_k int32 of scratch.
void SamplingDistribution(const SamplingRule& rule, std::span<const float> logits, std::span<float> probabilities, Arena& scratch);

// The first index whose cumulative weight exceeds u times the sum of all; u in [0, 1). Never an index of weight 0; -1 if all are 0.
int32_t DrawIndex(std::span<const float> weights, double u);

// Index of the largest value, ties to the lower index, NaN as -inf; 0 if all are -inf.
int32_t ArgMax(std::span<const float> values);

}  // namespace fathom

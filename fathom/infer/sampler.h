// The next token from logits: MaxText's decode_sampling_strategy with a seed.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "fathom/kernels/head/sampling.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

struct SamplingOptions {
  SamplingRule rule;
  uint64_t seed = 0;
};

// "greedy", "weighted", "topk", "nucleus", "composite". Throws Error(kUsage) with what is allowed.
SamplingStrategy ParseSamplingStrategy(const std::string& name);

// Throws Error(kUsage) naming the flag that the strategy needs and lacks, or that is out of range.
void CheckSampling(const SamplingRule& rule);

// Throws Error(kInput), naming a token: a logit [V] is NaN or infinite, which no comparison between logits would show.
void CheckFinite(std::span<const float> logits);

class Sampler {
 public:
  Sampler(const SamplingOptions& options, int64_t vocab);
  // The token at this place of the answer: a pure function of logits, seed and index. Throws Error(kInput) as CheckFinite does.
  int32_t Sample(std::span<const float> logits, int64_t index);
  // The same token, whatever its logit.
  int32_t Guess(std::span<const float> logits, int64_t index);
  // The distribution that Sample draws from; valid until the next call. Greedy: all weight on one token.
  std::span<const float> Distribution(std::span<const float> logits);

 private:
  SamplingOptions options_;
  Tensor probabilities_;
  Arena scratch_;
};

}  // namespace fathom

#include "fathom/infer/sampler.h"

#include <algorithm>

#include "fathom/base/rng.h"
#include "fathom/kernels/elementwise/value_checks.h"
#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {

SamplingStrategy ParseSamplingStrategy(const std::string& name) {
  if (name == "greedy") return SamplingStrategy::kGreedy;
  if (name == "weighted") return SamplingStrategy::kWeighted;
  if (name == "topk") return SamplingStrategy::kTopK;
  if (name == "nucleus") return SamplingStrategy::kNucleus;
  if (name == "composite") return SamplingStrategy::kComposite;
  Throw(ErrorCode::kUsage, "decode_sampling_strategy={}: allowed are greedy, weighted, topk, nucleus, composite", name);
}

void CheckSampling(const SamplingRule& r) {
  const bool needs_k = r.strategy == SamplingStrategy::kTopK || r.strategy == SamplingStrategy::kComposite;
  const bool needs_p = r.strategy == SamplingStrategy::kNucleus || r.strategy == SamplingStrategy::kComposite;
  if (needs_k && r.top_k < 1) Throw(ErrorCode::kUsage, "decode_sampling_top_k={}: this strategy needs 1 or more", r.top_k);
  if (needs_p && !(r.top_p > 0 && r.top_p <= 1))
    Throw(ErrorCode::kUsage, "decode_sampling_nucleus_p={}: this strategy needs a probability above 0, at most 1", r.top_p);
  if (r.strategy != SamplingStrategy::kGreedy && !(r.temperature > 0)) {
    Throw(ErrorCode::kUsage,
          "decode_sampling_temperature={}: above 0 is needed (decode_sampling_strategy=greedy takes the most likely token)", r.temperature);
  }
}

void CheckFinite(std::span<const float> logits) {
  const ConstView row = ViewOf(logits.data(), {1, std::ssize(logits)});
  if (!HasNonFinite(row)) return;
  const int64_t id = CountValues(row).first_non_finite;
  Throw(ErrorCode::kInput, "the model's logits are not finite (token {} has {}); fathom check files names the broken weights", id,
        logits[static_cast<size_t>(id)]);
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab)
    : options_(options), probabilities_(DType::kF32, {vocab}), scratch_(2 * vocab * 4 + (1 << 16)) {
  CheckSampling(options.rule);
}

std::span<const float> Sampler::Distribution(std::span<const float> logits) {
  const std::span<float> p{probabilities_.mutable_data<float>(), logits.size()};
  if (options_.rule.strategy == SamplingStrategy::kGreedy) {
    std::fill(p.begin(), p.end(), 0.0f);
    p[static_cast<size_t>(ArgMax(logits))] = 1;
    return p;
  }
  ArenaScope scope(scratch_);
  SamplingDistribution(options_.rule, logits, p, scratch_);
  return p;
}

int32_t Sampler::Guess(std::span<const float> logits, int64_t index) {
  if (options_.rule.strategy == SamplingStrategy::kGreedy) return ArgMax(logits);
  const CounterRng rng(options_.seed, HashName("sample"));
  const int32_t id = DrawIndex(Distribution(logits), rng.Uniform(static_cast<uint64_t>(index)));
  return id >= 0 ? id : ArgMax(logits);
}

int32_t Sampler::Sample(std::span<const float> logits, int64_t index) {
  CheckFinite(logits);
  return Guess(logits, index);
}

}  // namespace fathom

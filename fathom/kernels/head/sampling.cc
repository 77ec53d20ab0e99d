#include "fathom/kernels/head/sampling.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/head/sampling.cc"
#include <hwy/foreach_target.h>

#include <limits>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

HWY_INLINE VF WithoutNaN(VF x) { return hn::IfThenElse(hn::IsNaN(x), hn::Set(DF(), -std::numeric_limits<float>::infinity()), x); }

// The largest value and its first index; NaN as -inf.
float LargestOf(const float* x, int64_t n, int32_t* index) {
  const DF d;
  const DI di;
  // Each lane keeps its largest and where it first stood.
  VF largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  auto where = hn::Zero(di);
  ForVectors(n, [&](auto at) {
    const VF v = WithoutNaN(at.Load(x));
    const auto better = hn::And(hn::Gt(v, largest), at.Valid());
    largest = hn::IfThenElse(better, v, largest);
    where = hn::IfThenElse(hn::RebindMask(di, better), hn::Set(di, static_cast<int32_t>(at.i)), where);
  });
  alignas(64) float values[kMaxLanes];
  alignas(64) int32_t blocks[kMaxLanes];
  hn::Store(largest, d, values);
  hn::Store(where, di, blocks);
  float best = -std::numeric_limits<float>::infinity();
  int32_t first = 0;
  for (int32_t lane = 0; lane < LanesF(); ++lane) {
    const int32_t i = blocks[lane] + lane;
    if (values[lane] > best || (values[lane] == best && best > -std::numeric_limits<float>::infinity() && i < first)) {
      best = values[lane];
      first = i;
    }
  }
  *index = first;
  return best;
}

// out = e^((x - shift) inverse) where x >= floor, else 0; returns the sum. out == nullptr: only the sum.
double ExpRow(const float* x, int64_t n, float shift, float inverse, float floor, float* out) {
  const DF d;
  const VF s = hn::Set(d, shift), scale = hn::Set(d, inverse), least = hn::Set(d, floor);
  return RowSum(n, [&](auto at, VF sum) {
    const VF v = at.Load(x);
    const VF e = at.Mask(hn::IfThenElseZero(hn::Ge(v, least), ExpF(hn::Mul(hn::Sub(v, s), scale))));
    if (out != nullptr) at.Store(e, out);
    return hn::Add(sum, e);
  });
}

// Sum of the weights whose x is at least cut.
double SumAbove(const float* x, const float* weights, int64_t n, float cut) {
  const VF least = hn::Set(DF(), cut);
  return RowSum(n, [&](auto at, VF sum) { return hn::Add(sum, hn::IfThenElseZero(hn::Ge(at.Load(x), least), at.Load(weights))); });
}

void ScaleRow(float* x, int64_t n, float scale) {
  ForVectors(n, [=](auto at) { at.Store(hn::Mul(at.Load(x), hn::Set(DF(), scale)), x); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <bit>
#include <cmath>

#include "fathom/kernels/elementwise/topk.h"

namespace fathom {
HWY_EXPORT(LargestOf);
HWY_EXPORT(ExpRow);
HWY_EXPORT(SumAbove);
HWY_EXPORT(ScaleRow);
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

float Largest(std::span<const float> x, int32_t* index) { return HWY_DYNAMIC_DISPATCH(LargestOf)(x.data(), std::ssize(x), index); }

double ExpSum(std::span<const float> x, float shift, double temperature, float floor, float* out) {
  return HWY_DYNAMIC_DISPATCH(ExpRow)(x.data(), std::ssize(x), shift, static_cast<float>(1.0 / temperature), floor, out);
}

// logits[ids[i]] for the first i at which the running sum of e^(logit - largest) reaches target, or nothing (-inf) if none does.
float CutOff(std::span<const float> logits, std::span<const int32_t> ids, float largest, double target) {
  double sum = 0;
  for (const int32_t id : ids) {
    const float logit = logits[static_cast<size_t>(id)];
    sum += std::exp(static_cast<double>(logit) - largest);
    if (sum >= target) return logit;
  }
  return kLowest;
}

// Floats in their own order as integers, and back.
int32_t OrderOf(float x) {
  const auto bits = std::bit_cast<int32_t>(x);
  return bits < 0 ? bits ^ 0x7fffffff : bits;
}
float FloatAt(int32_t order) { return std::bit_cast<float>(order < 0 ? order ^ 0x7fffffff : order); }

// The smallest logit of the nucleus, by bisection over the floats: the largest cut at which the weights above it still reach top_p, without
// sorting the vocabulary. weights: e^(logit - largest), overwritten.
float NucleusCutOff(std::span<const float> logits, double top_p, float largest, std::span<float> weights) {
  const auto n = std::ssize(logits);
  const double target = top_p * ExpSum(logits, largest, 1.0, kLowest, weights.data());
  const auto reaches = [&](float cut) { return HWY_DYNAMIC_DISPATCH(SumAbove)(logits.data(), weights.data(), n, cut) >= target; };
  if (reaches(largest)) return largest;
  if (!reaches(kLowest)) return kLowest;
  int64_t low = OrderOf(kLowest), high = OrderOf(largest);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (reaches(FloatAt(static_cast<int32_t>(middle))) ? low : high) = middle;
  }
  return FloatAt(static_cast<int32_t>(low));
}

// The top k, of these only what the nucleus keeps when there is one, as weights e^((logit - largest) / temperature); returns their sum.
double TopKWeights(const SamplingRule& rule, std::span<const float> logits, float largest, std::span<float> weights, Arena& scratch) {
  const int64_t n = std::ssize(logits), k = std::min(rule.top_k, n);
  const ArenaScope scope(scratch);
  const std::span<int32_t> ids = scratch.AllocSpan<int32_t>(k), work = scratch.AllocSpan<int32_t>(n);
  TopK(logits, k, ids, work);
  float cut = kLowest;
  double temperature = rule.temperature;
  if (rule.strategy == SamplingStrategy::kComposite) {
    double sum = 0;
    for (const int32_t id : ids) sum += std::exp(static_cast<double>(logits[static_cast<size_t>(id)]) - largest);
    cut = CutOff(logits, ids, largest, rule.top_p * sum);
    temperature = std::max(temperature, 1e-6);
  }
  std::fill(weights.begin(), weights.end(), 0.0f);
  double sum = 0;
  for (const int32_t id : ids) {
    const auto i = static_cast<size_t>(id);
    if (!(logits[i] >= cut)) continue;
    weights[i] = static_cast<float>(std::exp((static_cast<double>(logits[i]) - largest) / temperature));
    sum += weights[i];
  }
  return sum;
}

void CheckRule(const SamplingRule& rule) {
  const bool top_k = rule.strategy == SamplingStrategy::kTopK || rule.strategy == SamplingStrategy::kComposite;
  const bool top_p = rule.strategy == SamplingStrategy::kNucleus || rule.strategy == SamplingStrategy::kComposite;
  FATHOM_CHECK(rule.strategy == SamplingStrategy::kGreedy || rule.strategy == SamplingStrategy::kComposite || rule.temperature > 0,
               "temperature {}", rule.temperature);
  FATHOM_CHECK((!top_k || rule.top_k >= 1) && (!top_p || rule.top_p >= 0), "top_k {}, top_p {}", rule.top_k, rule.top_p);
}

}  // namespace

void SamplingDistribution(const SamplingRule& rule, std::span<const float> logits, std::span<float> probabilities, Arena& scratch) {
  CheckRule(rule);
  FATHOM_CHECK(!logits.empty() && probabilities.size() == logits.size(), "{} logits, {} probabilities", logits.size(),
               probabilities.size());
  int32_t best;
  const float largest = Largest(logits, &best);
  if (rule.strategy == SamplingStrategy::kGreedy || !std::isfinite(largest)) {
    std::fill(probabilities.begin(), probabilities.end(), 0.0f);
    probabilities[static_cast<size_t>(best)] = 1.0f;
    return;
  }
  double sum;
  if (rule.strategy == SamplingStrategy::kTopK || rule.strategy == SamplingStrategy::kComposite) {
    sum = TopKWeights(rule, logits, largest, probabilities, scratch);
  } else {
    const float floor = rule.strategy == SamplingStrategy::kNucleus ? NucleusCutOff(logits, rule.top_p, largest, probabilities) : kLowest;
    sum = ExpSum(logits, largest, rule.temperature, floor, probabilities.data());
  }
  HWY_DYNAMIC_DISPATCH(ScaleRow)(probabilities.data(), std::ssize(probabilities), static_cast<float>(1.0 / sum));
}

int32_t DrawIndex(std::span<const float> weights, double u) {
  double sum = 0;
  for (const float w : weights) sum += w;
  const double target = u * sum;
  double cumulative = 0;
  int32_t last = -1;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    last = static_cast<int32_t>(i);
    cumulative += weights[i];
    if (cumulative > target) break;
  }
  return last;
}

int32_t ArgMax(std::span<const float> values) {
  int32_t index;
  Largest(values, &index);
  return index;
}

}  // namespace fathom
#endif  // HWY_ONCE

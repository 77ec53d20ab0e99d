#include "fathom/kernels/moe/balance.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/moe/balance.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// p = part / sum of parts: the score itself, or its exponential.
template <class At>
HWY_INLINE VF Part(const At& at, const float* scores, bool softmax) {
  const VF s = at.Load(scores);
  return softmax ? ExpF(s) : s;
}
double PartSum(const float* scores, int64_t n, bool softmax) {
  const double sum = RowSum(n, [=](auto at, VF s) { return hn::Add(s, at.Mask(Part(at, scores, softmax))); });
  return std::max(sum, 1e-20);
}

// sum_p += p of each row that counts.
void AddProbabilityRows(const ConstView& scores, bool softmax, const float* weight, float* sum_p) {
  const int64_t n = scores.dim(1);
  for (int64_t t = 0; t < scores.dim(0); ++t) {
    if (weight != nullptr && weight[t] == 0) continue;
    const float* row = scores.row<float>(t);
    const VF inverse = hn::Set(DF(), static_cast<float>(1.0 / PartSum(row, n, softmax)));
    ForVectors(n, [=](auto at) { at.Store(hn::MulAdd(Part(at, row, softmax), inverse, at.Load(sum_p)), sum_p); });
  }
}

// From g, the gradient on every counted row's p:  softmax: d_score = p (g - sum g p);  else (g - sum g p) / sum of scores.
void ProbabilityBackwardRows(const ConstView& scores, bool softmax, const float* weight, const float* g, const View& d_scores) {
  const int64_t n = scores.dim(1);
  for (int64_t t = 0; t < scores.dim(0); ++t) {
    float* out = d_scores.row<float>(t);
    if (weight != nullptr && weight[t] == 0) {
      std::fill(out, out + n, 0.0f);
      continue;
    }
    const float* row = scores.row<float>(t);
    const double sum = PartSum(row, n, softmax);
    const double dot = RowSum(n, [=](auto at, VF s) { return hn::MulAdd(at.Load(g), Part(at, row, softmax), s); }) / sum;
    const VF inverse = hn::Set(DF(), static_cast<float>(1.0 / sum)), mean = hn::Set(DF(), static_cast<float>(dot));
    ForVectors(n, [=](auto at) {
      const VF outer = softmax ? hn::Mul(Part(at, row, softmax), inverse) : inverse;
      at.Store(hn::Mul(outer, hn::Sub(at.Load(g), mean)), out);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(AddProbabilityRows);
HWY_EXPORT(ProbabilityBackwardRows);
namespace {

// One sequence, its views cut out already.
struct Sequence {
  ConstView scores;
  View d_scores;
  std::span<const int32_t> ids;
  const float* weight;  // nullptr: all count
};

int64_t CountedTokens(const Sequence& s) {
  const int64_t rows = s.scores.dim(0);
  return s.weight == nullptr ? rows : rows - std::count(s.weight, s.weight + rows, 0.0f);
}

// f_e = E / (K n) times the assignments to e.
void Frequencies(const Sequence& s, int64_t chosen, int64_t tokens, float* f) {
  const int64_t experts = s.scores.dim(1);
  std::fill(f, f + experts, 0.0f);
  for (int64_t slot = 0; slot < std::ssize(s.ids); ++slot) {
    const int32_t id = s.ids[static_cast<size_t>(slot)];
    if (id >= 0 && (s.weight == nullptr || s.weight[slot / chosen] != 0)) f[id] += 1.0f;
  }
  const double factor = static_cast<double>(experts) / static_cast<double>(chosen * tokens);
  for (int64_t e = 0; e < experts; ++e) f[e] = static_cast<float>(f[e] * factor);
}

// sum_e f_e P_e; overwrites d_scores with gradient_scale times its gradient.
double SequenceLoss(const Sequence& s, bool softmax, int64_t chosen, double gradient_scale, Arena& scratch) {
  const int64_t rows = s.scores.dim(0), experts = s.scores.dim(1), tokens = CountedTokens(s);
  const ArenaScope scope(scratch);
  float *f = scratch.AllocSpan<float>(experts).data(), *p = scratch.AllocSpan<float>(experts).data();
  std::fill(p, p + experts, 0.0f);
  if (tokens > 0) Frequencies(s, chosen, tokens, f);
  SumOverRows(rows, experts, p, scratch, [&](int64_t begin, int64_t end, float* partial) {
    HWY_DYNAMIC_DISPATCH(AddProbabilityRows)(s.scores.Rows(begin, end), softmax, s.weight == nullptr ? nullptr : s.weight + begin, partial);
  });
  double loss = 0;
  for (int64_t e = 0; e < experts && tokens > 0; ++e) {
    loss += static_cast<double>(f[e]) * p[e] / static_cast<double>(tokens);
    f[e] = static_cast<float>(f[e] * gradient_scale / static_cast<double>(tokens));
  }
  ParallelRanges(rows, RowGrain(experts), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ProbabilityBackwardRows)
    (s.scores.Rows(begin, end), softmax, s.weight == nullptr ? nullptr : s.weight + begin, f, s.d_scores.Rows(begin, end));
  });
  return loss;
}

}  // namespace

double BalanceLoss(BalanceForm form, const BalanceInputs& in, float scale, View d_scores, Arena& scratch) {
  const auto& [scores, chosen, ids, weight, begin] = in;
  const int64_t rows = scores.dim(0), experts = scores.dim(1);
  FATHOM_CHECK(IsMatrix(scores, rows, experts) && IsMatrix(d_scores, rows, experts) && std::ssize(ids) == rows * chosen,
               "scores {}, d_scores {}, {} ids", scores.shape().ToString(), d_scores.shape().ToString(), ids.size());
  FATHOM_CHECK((weight.empty() || std::ssize(weight) == rows) && begin.size() >= 2 && begin.front() == 0 && begin.back() == rows,
               "{} weights, {} bounds", weight.size(), begin.size());
  for (const int32_t id : ids) FATHOM_CHECK(id < experts, "expert {} of {}", id, experts);
  const auto sequences = static_cast<double>(begin.size() - 1);
  double sum = 0;
  for (size_t b = 0; b + 1 < begin.size(); ++b) {
    const int64_t first = begin[b], last = begin[b + 1];
    const Sequence s = {scores.Rows(first, last), d_scores.Rows(first, last),
                        ids.subspan(static_cast<size_t>(first * chosen), static_cast<size_t>((last - first) * chosen)),
                        weight.empty() ? nullptr : weight.data() + first};
    sum += SequenceLoss(s, form == BalanceForm::kSoftmaxOfScores, chosen, scale / sequences, scratch);
  }
  return sum / sequences;
}

void CountAssignments(std::span<const int32_t> ids, int64_t chosen, std::span<const float> weight, std::span<int64_t> counts) {
  FATHOM_CHECK(weight.empty() || std::ssize(weight) * chosen == std::ssize(ids), "{} weights, {} ids", weight.size(), ids.size());
  for (size_t slot = 0; slot < ids.size(); ++slot) {
    FATHOM_CHECK(ids[slot] < std::ssize(counts), "expert {} of {}", ids[slot], counts.size());
    if (ids[slot] < 0 || (!weight.empty() && weight[slot / static_cast<size_t>(chosen)] == 0)) continue;
    ++counts[static_cast<size_t>(ids[slot])];
  }
}

void UpdateRouterBias(float rate, std::span<const int64_t> counts, std::span<float> bias) {
  FATHOM_CHECK(counts.size() == bias.size(), "{} counts, {} biases", counts.size(), bias.size());
  int64_t total = 0;
  for (const int64_t c : counts) total += c;
  for (size_t e = 0; e < counts.size(); ++e) {
    const int64_t above = counts[e] * std::ssize(counts) - total;  // E times (count - mean), exact
    if (above != 0) bias[e] += above < 0 ? rate : -rate;
  }
}

}  // namespace fathom
#endif  // HWY_ONCE

#include "fathom/kernels/moe/router.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/moe/router.cc"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void SigmoidRow(const float* logits, int64_t n, float* scores) {
  ForVectors(n, [&](auto at) { at.Store(SigmoidF(at.Load(logits)), scores); });
}

void SoftmaxRow(const float* logits, int64_t n, float* scores) {
  float largest = logits[0];
  for (int64_t e = 1; e < n; ++e) largest = std::max(largest, logits[e]);
  const VF shift = hn::Set(DF(), largest);
  const double sum = RowSum(n, [&](auto at, VF s) {
    const VF p = ExpF(hn::Sub(at.Load(logits), shift));
    at.Store(p, scores);
    return hn::Add(s, at.Mask(p));
  });
  const VF inverse = hn::Set(DF(), static_cast<float>(1.0 / sum));
  ForVectors(n, [&](auto at) { at.Store(hn::Mul(at.Load(scores), inverse), scores); });
}

void ScoreRows(const ConstView& logits, bool sigmoid, const View& scores) {
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    if (sigmoid) {
      SigmoidRow(logits.row<float>(t), logits.dim(1), scores.row<float>(t));
    } else {
      SoftmaxRow(logits.row<float>(t), logits.dim(1), scores.row<float>(t));
    }
  }
}

// dlogits holds the gradient on the scores and becomes the one on the logits.
//   sigmoid: d_logit = ds s (1 - s);  softmax: d_logit = s (ds - sum ds s).
void ScoreBackwardRows(const ConstView& scores, bool sigmoid, const View& dlogits) {
  const int64_t n = scores.dim(1);
  const VF one = hn::Set(DF(), 1.0f);
  for (int64_t t = 0; t < scores.dim(0); ++t) {
    const float* s = scores.row<float>(t);
    float* d = dlogits.row<float>(t);
    if (sigmoid) {
      ForVectors(n, [&](auto at) {
        const VF p = at.Load(s);
        at.Store(hn::Mul(at.Load(d), hn::Mul(p, hn::Sub(one, p))), d);
      });
      continue;
    }
    const VF dot = hn::Set(DF(), static_cast<float>(RowSum(n, [&](auto at, VF sum) { return hn::MulAdd(at.Load(d), at.Load(s), sum); })));
    ForVectors(n, [&](auto at) { at.Store(hn::Mul(at.Load(s), hn::Sub(at.Load(d), dot)), d); });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <array>
#include <limits>

#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(ScoreRows);
HWY_EXPORT(ScoreBackwardRows);

namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// The k largest of values, by falling value, ties to the lower index. NaN counts as -inf.
void LargestK(const float* values, int64_t n, int64_t k, int32_t* ids) {
  std::array<float, kMaxExperts> kept;
  int64_t count = 0;
  for (int64_t e = 0; e < n; ++e) {
    const float v = std::isnan(values[e]) ? kLowest : values[e];
    if (count == k && !(v > kept[static_cast<size_t>(k - 1)])) continue;
    int64_t at = count < k ? count++ : k - 1;
    for (; at > 0 && v > kept[static_cast<size_t>(at - 1)]; --at) {
      kept[static_cast<size_t>(at)] = kept[static_cast<size_t>(at - 1)];
      ids[at] = ids[at - 1];
    }
    kept[static_cast<size_t>(at)] = v;
    ids[at] = static_cast<int32_t>(e);
  }
}

float GroupScore(const float* choice, int64_t size, bool top2) {
  float first = kLowest, second = kLowest;
  for (int64_t e = 0; e < size; ++e) {
    second = std::max(second, std::min(first, choice[e]));
    first = std::max(first, choice[e]);
  }
  return top2 ? first + second : first;
}

// Experts of groups that are not kept become -inf.
void LimitGroups(const RouterShape& shape, float* choice) {
  const int64_t size = shape.experts / shape.groups;
  std::array<float, kMaxExperts> score;
  std::array<int32_t, kMaxExperts> kept;
  std::array<bool, kMaxExperts> keep;
  std::fill_n(keep.begin(), shape.groups, false);
  for (int64_t g = 0; g < shape.groups; ++g) score[static_cast<size_t>(g)] = GroupScore(choice + g * size, size, shape.group_top2);
  LargestK(score.data(), shape.groups, shape.kept_groups, kept.data());
  for (int64_t i = 0; i < shape.kept_groups; ++i) keep[static_cast<size_t>(kept[static_cast<size_t>(i)])] = true;
  for (int64_t g = 0; g < shape.groups; ++g) {
    if (!keep[static_cast<size_t>(g)]) std::fill(choice + g * size, choice + (g + 1) * size, kLowest);
  }
}

// The factor of the chosen scores: scaling, or scaling / (their sum + 1e-20).
double ChosenFactor(const RouterShape& shape, const float* scores, const int32_t* ids) {
  if (!shape.normalize) return shape.scaling;
  double sum = 1e-20;
  for (int64_t k = 0; k < shape.chosen; ++k) sum += scores[ids[k]];
  return shape.scaling / sum;
}

bool AllFinite(const float* x, int64_t n) {
  bool finite = true;
  for (int64_t i = 0; i < n; ++i) finite &= std::abs(x[i]) <= std::numeric_limits<float>::max();
  return finite;
}

// False: a choice score is not finite.
bool ChooseExperts(const RouterShape& shape, const float* scores, std::span<const float> bias, int32_t* ids) {
  std::array<float, kMaxExperts> choice;
  for (size_t e = 0; e < static_cast<size_t>(shape.experts); ++e) choice[e] = bias.empty() ? scores[e] : scores[e] + bias[e];
  const bool finite = AllFinite(choice.data(), shape.experts);
  if (shape.groups > 1 && shape.kept_groups < shape.groups) LimitGroups(shape, choice.data());
  LargestK(choice.data(), shape.experts, shape.chosen, ids);
  return finite;
}

void ChosenWeights(const RouterShape& shape, const float* scores, const int32_t* ids, float* weights) {
  const double factor = ChosenFactor(shape, scores, ids);
  for (int64_t k = 0; k < shape.chosen; ++k) weights[k] = static_cast<float>(scores[ids[k]] * factor);
}

// w_k = f s_k:  ds_k = f dw_k, less, when normalised, f (sum_j dw_j s_j) / (sum + 1e-20).
void ChosenBackward(const RouterShape& shape, const float* scores, const int32_t* ids, const float* dweights, float* d_scores) {
  const double factor = ChosenFactor(shape, scores, ids);
  double shared = 0;
  if (shape.normalize) {
    for (int64_t k = 0; k < shape.chosen; ++k) shared += static_cast<double>(dweights[k]) * scores[ids[k]];
    shared *= factor / shape.scaling;
  }
  for (int64_t k = 0; k < shape.chosen; ++k) d_scores[ids[k]] += static_cast<float>(factor * (dweights[k] - shared));
}

void CheckShape(const RouterShape& shape, const ConstView& scores, size_t ids, size_t weights) {
  FATHOM_CHECK(0 < shape.chosen && shape.chosen <= shape.experts && shape.experts <= kMaxExperts, "{} of {} experts", shape.chosen,
               shape.experts);
  FATHOM_CHECK(0 < shape.kept_groups && shape.kept_groups <= shape.groups && shape.experts % shape.groups == 0,
               "{} of {} groups of {} experts", shape.kept_groups, shape.groups, shape.experts);
  const auto slots = static_cast<size_t>(scores.dim(0) * shape.chosen);
  FATHOM_CHECK(IsMatrix(scores, scores.dim(0), shape.experts) && scores.dtype() == DType::kF32 && ids == slots && weights == slots,
               "scores {}, {} ids, {} weights", scores.shape().ToString(), ids, weights);
}

}  // namespace

void RouterForward(const RouterShape& shape, ConstView logits, std::span<const float> bias, View scores, std::span<int32_t> ids,
                   std::span<float> weights) {
  CheckShape(shape, scores, ids.size(), weights.size());
  FATHOM_CHECK(IsMatrix(logits, scores.dim(0), shape.experts) && (bias.empty() || std::ssize(bias) == shape.experts),
               "logits {}, {} biases", logits.shape().ToString(), bias.size());
  ParallelRanges(logits.dim(0), 8, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ScoreRows)(logits.Rows(begin, end), shape.sigmoid, scores.Rows(begin, end));
    for (int64_t t = begin; t < end; ++t) {
      float* w = weights.data() + t * shape.chosen;
      const bool finite = ChooseExperts(shape, scores.row<float>(t), bias, ids.data() + t * shape.chosen);
      ChosenWeights(shape, scores.row<float>(t), ids.data() + t * shape.chosen, w);
      if (!finite || !AllFinite(logits.row<float>(t), shape.experts)) std::fill_n(w, shape.chosen, std::numeric_limits<float>::quiet_NaN());
    }
  });
}

void RouterChoice(const RouterShape& shape, ConstView scores, std::span<const float> bias, std::span<int32_t> ids) {
  CheckShape(shape, scores, ids.size(), ids.size());
  FATHOM_CHECK(bias.empty() || std::ssize(bias) == shape.experts, "{} biases", bias.size());
  ParallelRanges(scores.dim(0), 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) ChooseExperts(shape, scores.row<float>(t), bias, ids.data() + t * shape.chosen);
  });
}

void RouterBackward(const RouterShape& shape, ConstView scores, std::span<const int32_t> ids, std::span<const float> dweights,
                    ConstView d_scores, View dlogits) {
  CheckShape(shape, scores, ids.size(), dweights.size());
  FATHOM_CHECK(IsMatrix(dlogits, scores.dim(0), shape.experts) && (d_scores.empty() || IsMatrix(d_scores, scores.dim(0), shape.experts)),
               "dlogits {}", dlogits.shape().ToString());
  ParallelRanges(scores.dim(0), 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* d = dlogits.row<float>(t);
      if (d_scores.empty()) {
        std::fill(d, d + shape.experts, 0.0f);
      } else {
        std::copy(d_scores.row<float>(t), d_scores.row<float>(t) + shape.experts, d);
      }
      ChosenBackward(shape, scores.row<float>(t), ids.data() + t * shape.chosen, dweights.data() + t * shape.chosen, d);
    }
    HWY_DYNAMIC_DISPATCH(ScoreBackwardRows)(scores.Rows(begin, end), shape.sigmoid, dlogits.Rows(begin, end));
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

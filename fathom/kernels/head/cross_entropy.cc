#include "fathom/kernels/head/cross_entropy.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/head/cross_entropy.cc"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

float RowMax(const float* x, int64_t n) {
  const DF d;
  const int64_t lanes = LanesF();
  VF largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) largest = hn::Max(largest, LoadF(x + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

// sum e^(x - shift); NaN if an x is NaN or infinite: -inf would vanish, x - x does not let it.
double ExpSum(const float* x, int64_t n, float shift) {
  const VF s = hn::Set(DF(), shift);
  return RowSum(n, [=](auto at, VF sum) {
    const VF v = at.Load(x);
    return hn::Add(sum, at.Mask(hn::Add(ExpF(hn::Sub(v, s)), hn::Sub(v, v))));
  });
}

// d = factor e^(x - shift).
void SoftmaxRow(const float* x, int64_t n, float shift, float factor, const OutRow& d) {
  const VF s = hn::Set(DF(), shift), f = hn::Set(DF(), factor);
  ForVectors(n, [&](auto at) { Store(at, hn::Mul(ExpF(hn::Sub(at.Load(x), s)), f), d); });
}

void StoreElement(const OutRow& row, int64_t i, float value) {
  if (row.dtype == DType::kF32) {
    reinterpret_cast<float*>(row.data)[i] = value;
  } else {
    reinterpret_cast<BF16*>(row.data)[i] = ToBF16(value);
  }
}

// Token i, with logits x; returns lse - logit[target] and updates sums. d.data == nullptr: no gradient.
double TokenLoss(const float* x, int64_t n, const LossTargets& targets, size_t i, const OutRow& d, CrossEntropySums& sums) {
  const int32_t target = targets.ids[i];
  const float weight = targets.weights[i], z_loss = targets.z_loss;
  const float largest = RowMax(x, n);
  const double sum = ExpSum(x, n, largest);
  const double log_sum = std::log(sum), lse = static_cast<double>(largest) + log_sum;
  const double log_p =
      (static_cast<double>(x[target]) - largest) - log_sum;  // not x - lse: keeps the digits of a target that is nearly certain
  sums.loss -= weight * log_p;
  sums.z_loss += static_cast<double>(weight) * z_loss * lse * lse;
  sums.weight += weight;
  sums.max_logit = std::max(sums.max_logit, largest);
  if (d.data != nullptr) {
    const double outer = static_cast<double>(weight) * targets.scale, z = 2.0 * z_loss * lse;
    SoftmaxRow(x, n, largest, static_cast<float>(outer * (1 + z) / sum), d);
    // expm1 because p - 1 would cancel.
    StoreElement(d, target, static_cast<float>(outer * (std::expm1(log_p) + z * std::exp(log_p))));
  }
  return -log_p;
}

void CrossEntropyRows(const ConstView& logits, const LossTargets& targets, const View& dlogits, float* nll, CrossEntropySums& sums) {
  const int64_t n = logits.dim(1);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const auto i = static_cast<size_t>(t);
    const bool counted = targets.weights[i] != 0, valid = 0 <= targets.ids[i] && targets.ids[i] < n;
    const OutRow d = dlogits.empty() ? OutRow{nullptr, DType::kF32} : RowAt(dlogits, t);
    if (!counted && (nll == nullptr || !valid)) {
      if (nll != nullptr) nll[t] = 0;
      if (d.data != nullptr) std::memset(d.data, 0, static_cast<size_t>(n * DTypeSize(d.dtype)));
      continue;
    }
    CrossEntropySums uncounted;
    const double loss = TokenLoss(logits.row<float>(t), n, targets, i, d, counted ? sums : uncounted);
    if (nll != nullptr) nll[t] = static_cast<float>(loss);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <array>

#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(CrossEntropyRows);

CrossEntropySums CrossEntropy(ConstView logits, const LossTargets& targets, View dlogits, std::span<float> nll) {
  const std::span<const int32_t> ids = targets.ids;
  const std::span<const float> weights = targets.weights;
  const int64_t rows = logits.dim(0), n = logits.dim(1);
  FATHOM_CHECK(
      IsMatrix(logits, rows, n) && std::ssize(ids) == rows && std::ssize(weights) == rows && (nll.empty() || std::ssize(nll) == rows),
      "logits {}, {} targets, {} weights", logits.shape().ToString(), ids.size(), weights.size());
  FATHOM_CHECK(dlogits.empty() || IsMatrix(dlogits, rows, n), "dlogits {}", dlogits.shape().ToString());
  for (size_t t = 0; t < ids.size(); ++t) {
    FATHOM_CHECK(weights[t] == 0 || (0 <= ids[t] && ids[t] < n), "target {} of {}", ids[t], n);
  }
  // Sums of chunks cut by the number of rows alone, added in order: the same bits for any number of threads.
  std::array<CrossEntropySums, kMaxChunks> partial;
  const int64_t chunk = ChunkRows(rows, 1), chunks = (rows + chunk - 1) / chunk;
  ParallelRanges(chunks, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) {
      const int64_t begin = c * chunk, end = std::min(rows, begin + chunk);
      HWY_DYNAMIC_DISPATCH(CrossEntropyRows)
      (logits.Rows(begin, end), targets.Part(begin, end), dlogits.empty() ? View() : dlogits.Rows(begin, end),
       nll.empty() ? nullptr : nll.data() + begin, partial[static_cast<size_t>(c)]);
    }
  });
  CrossEntropySums total;
  for (int64_t c = 0; c < chunks; ++c) total += partial[static_cast<size_t>(c)];
  return total;
}

}  // namespace fathom
#endif  // HWY_ONCE

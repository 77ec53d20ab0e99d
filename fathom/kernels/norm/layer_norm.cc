#include "fathom/kernels/norm/layer_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/norm/layer_norm.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void LayerNormForwardRows(const ConstView& x, const ConstView& w, const ConstView& b, float eps, const View& y, float* stats) {
  const int64_t d = x.dim(1);
  const InRow weight = RowAt(w, 0), bias = RowAt(b, 0);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow in = RowAt(x, t);
    const OutRow out = RowAt(y, t);
    const double sum = RowSum(d, [&](auto at, VF s) { return hn::Add(s, Load(at, in)); });
    const float mean = static_cast<float>(sum / static_cast<double>(d));
    const VF m = hn::Set(DF(), mean);
    const double squares = RowSum(d, [&](auto at, VF s) {
      const VF a = at.Mask(hn::Sub(Load(at, in), m));
      return hn::MulAdd(a, a, s);
    });
    const float rstd = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(d) + eps));
    if (stats != nullptr) {
      stats[2 * t] = mean;
      stats[2 * t + 1] = rstd;
    }
    const VF r = hn::Set(DF(), rstd);
    ForVectors(d, [&](auto at) {
      const VF normed = hn::Mul(hn::Sub(Load(at, in), m), r);
      Store(at, hn::MulAdd(normed, Load(at, weight), Load(at, bias)), out);
    });
  }
}

// n = (x - mean) rstd, g = dy w:  dx = rstd (g - mean(g) - n mean(g n)),  dw += dy n,  db += dy. sums holds dw, then db.
void LayerNormBackwardRows(const ConstView& dy, const ConstView& x, const ConstView& w, const float* stats, const View& dx, float* sums) {
  const int64_t d = x.dim(1);
  const InRow weight = RowAt(w, 0);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow grad = RowAt(dy, t), in = RowAt(x, t);
    const OutRow out = RowAt(dx, t);
    const VF mean = hn::Set(DF(), stats[2 * t]), rstd = hn::Set(DF(), stats[2 * t + 1]);
    const double g_sum = RowSum(d, [&](auto at, VF s) { return hn::MulAdd(Load(at, grad), Load(at, weight), s); });
    const double gn_sum = RowSum(d, [&](auto at, VF s) {
      const VF n = hn::Mul(hn::Sub(Load(at, in), mean), rstd);
      return hn::MulAdd(hn::Mul(Load(at, grad), Load(at, weight)), n, s);
    });
    const VF g_mean = hn::Set(DF(), static_cast<float>(g_sum / static_cast<double>(d)));
    const VF gn_mean = hn::Set(DF(), static_cast<float>(gn_sum / static_cast<double>(d)));
    ForVectors(d, [&](auto at) {
      const VF g = Load(at, grad), n = hn::Mul(hn::Sub(Load(at, in), mean), rstd);
      Store(at, hn::MulAdd(g, n, Load(at, sums)), sums);
      Store(at, hn::Add(g, Load(at, sums + d)), sums + d);
      const VF inner = hn::NegMulAdd(n, gn_mean, hn::Sub(hn::Mul(g, Load(at, weight)), g_mean));
      Store(at, hn::Mul(rstd, inner), out);
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
HWY_EXPORT(LayerNormForwardRows);
HWY_EXPORT(LayerNormBackwardRows);

void LayerNormForward(ConstView x, ConstView w, ConstView b, float eps, View y, View stats) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  FATHOM_CHECK(IsMatrix(x, rows, d) && IsMatrix(y, rows, d) && IsVector(w, d) && IsVector(b, d), "x {}, y {}, w {}, b {}",
               x.shape().ToString(), y.shape().ToString(), w.shape().ToString(), b.shape().ToString());
  FATHOM_CHECK(stats.empty() || IsF32Vector(stats, 2 * rows), "stats {}", stats.shape().ToString());
  float* s = stats.empty() ? nullptr : stats.data<float>();
  ParallelRanges(rows, RowGrain(d), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(LayerNormForwardRows)(x.Rows(begin, end), w, b, eps, y.Rows(begin, end), s == nullptr ? nullptr : s + 2 * begin);
  });
}

void LayerNormBackward(ConstView dy, ConstView x, ConstView w, ConstView stats, const LayerNormGradients& gradients, Arena& scratch) {
  const View &dx = gradients.dx, &dw = gradients.dw, &db = gradients.db;
  const int64_t rows = x.dim(0), d = x.dim(1);
  FATHOM_CHECK(IsMatrix(dy, rows, d) && IsMatrix(x, rows, d) && IsMatrix(dx, rows, d) && IsVector(w, d), "dy {}, x {}, dx {}, w {}",
               dy.shape().ToString(), x.shape().ToString(), dx.shape().ToString(), w.shape().ToString());
  FATHOM_CHECK(IsF32Vector(stats, 2 * rows) && (dw.empty() || IsF32Vector(dw, d)) && (db.empty() || IsF32Vector(db, d)),
               "stats {}, dw {}, db {}", stats.shape().ToString(), dw.shape().ToString(), db.shape().ToString());
  const float* s = stats.data<float>();
  const ArenaScope scope(scratch);
  float* sums = scratch.AllocSpan<float>(2 * d).data();
  std::memset(sums, 0, static_cast<size_t>(2 * d) * sizeof(float));
  SumOverRows(rows, 2 * d, sums, scratch, [&](int64_t begin, int64_t end, float* partial) {
    HWY_DYNAMIC_DISPATCH(LayerNormBackwardRows)(dy.Rows(begin, end), x.Rows(begin, end), w, s + 2 * begin, dx.Rows(begin, end), partial);
  });
  const auto add = [&](const View& to, const float* from) {
    if (to.empty()) return;
    ParallelRanges(d, kElementGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) to.data<float>()[i] += from[i];
    });
  };
  add(dw, sums);
  add(db, sums + d);
}

}  // namespace fathom
#endif  // HWY_ONCE

#include "fathom/kernels/norm/rms_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/norm/rms_norm.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "fathom/base/threads.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void RmsNormForwardRows(const ConstView& x, const ConstView& w, float eps, const View& y, float* rstd) {
  const int64_t d = x.dim(1);
  const InRow weight = RowAt(w, 0);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow in = RowAt(x, t);
    const OutRow out = RowAt(y, t);
    const double squares = RowSum(d, [&](auto at, VF sum) {
      const VF a = Load(at, in);
      return hn::MulAdd(a, a, sum);
    });
    const float r = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(d) + eps));
    if (rstd != nullptr) rstd[t] = r;
    const VF scale = hn::Set(DF(), r);
    ForVectors(d, [&](auto at) { Store(at, hn::Mul(hn::Mul(Load(at, in), scale), Load(at, weight)), out); });
  }
}

// dx = rstd (g - x rstd^2 mean(g x)) with g = dy w;  dw += dy x rstd.
void RmsNormBackwardRows(const ConstView& dy, const ConstView& x, const ConstView& w, const float* rstd, const View& dx, bool add_dx,
                         float* dw) {
  const int64_t d = x.dim(1);
  const InRow weight = RowAt(w, 0);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow grad = RowAt(dy, t), in = RowAt(x, t);
    const OutRow out = RowAt(dx, t);
    const double dot = RowSum(d, [&](auto at, VF sum) { return hn::MulAdd(hn::Mul(Load(at, grad), Load(at, weight)), Load(at, in), sum); });
    const VF r = hn::Set(DF(), rstd[t]);
    const VF c = hn::Set(DF(), static_cast<float>(dot / static_cast<double>(d) * rstd[t] * rstd[t]));
    ForVectors(d, [&](auto at) {
      const VF g = Load(at, grad), a = Load(at, in);
      VF result = hn::Mul(r, hn::NegMulAdd(a, c, hn::Mul(g, Load(at, weight))));
      if (add_dx) result = hn::Add(result, Load(at, out));
      Store(at, result, out);
      if (dw != nullptr) Store(at, hn::MulAdd(g, hn::Mul(a, r), Load(at, dw)), dw);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"
#include "fathom/tensor/traced_bytes.h"

namespace fathom {
HWY_EXPORT(RmsNormForwardRows);
HWY_EXPORT(RmsNormBackwardRows);

void RmsNormForward(ConstView x, ConstView w, float eps, View y, View rstd) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  FATHOM_CHECK(IsMatrix(x, rows, d) && IsMatrix(y, rows, d) && IsVector(w, d), "x {}, y {}, w {}", x.shape().ToString(),
               y.shape().ToString(), w.shape().ToString());
  FATHOM_CHECK(rstd.empty() || IsF32Vector(rstd, rows), "rstd {}", rstd.shape().ToString());
  TraceSlice slice("norm");
  AddBytes(slice, {x, y});
  float* r = rstd.empty() ? nullptr : rstd.data<float>();
  ParallelRanges(rows, RowGrain(d), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(RmsNormForwardRows)(x.Rows(begin, end), w, eps, y.Rows(begin, end), r == nullptr ? nullptr : r + begin);
  });
}

void RmsNormBackward(ConstView dy, ConstView x, ConstView w, ConstView rstd, const RmsNormGradients& gradients, Arena& scratch) {
  const View &dx = gradients.dx, &dw = gradients.dw;
  const bool add_dx = gradients.add_dx;
  const int64_t rows = x.dim(0), d = x.dim(1);
  FATHOM_CHECK(IsMatrix(dy, rows, d) && IsMatrix(x, rows, d) && IsMatrix(dx, rows, d) && IsVector(w, d), "dy {}, x {}, dx {}, w {}",
               dy.shape().ToString(), x.shape().ToString(), dx.shape().ToString(), w.shape().ToString());
  FATHOM_CHECK(!add_dx || dx.dtype() == DType::kF32, "only F32 is added to");
  FATHOM_CHECK(IsF32Vector(rstd, rows) && (dw.empty() || IsF32Vector(dw, d)), "rstd {}, dw {}", rstd.shape().ToString(),
               dw.shape().ToString());
  TraceSlice slice("norm's gradient");
  AddBytes(slice, {dy, x, dx, add_dx ? dx : View()});
  const float* r = rstd.data<float>();
  SumOverRows(rows, d, dw.empty() ? nullptr : dw.data<float>(), scratch, [&](int64_t begin, int64_t end, float* partial) {
    HWY_DYNAMIC_DISPATCH(RmsNormBackwardRows)
    (dy.Rows(begin, end), x.Rows(begin, end), w, r + begin, dx.Rows(begin, end), add_dx, partial);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

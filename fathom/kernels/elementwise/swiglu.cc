#include "fathom/kernels/elementwise/swiglu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/elementwise/swiglu.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// silu(g) = g sigmoid(g).
void SwigluForwardRows(const ConstView& gate, const ConstView& up, const float* row_weight, const View& y) {
  const int64_t f = gate.dim(1);
  for (int64_t t = 0; t < gate.dim(0); ++t) {
    const InRow g_row = RowAt(gate, t), u_row = RowAt(up, t);
    const OutRow out = RowAt(y, t);
    const VF weight = hn::Set(DF(), row_weight == nullptr ? 1.0f : row_weight[t]);
    ForVectors(f, [&](auto at) {
      const VF g = Load(at, g_row), u = Load(at, u_row);
      Store(at, hn::Mul(hn::Mul(hn::Mul(g, SigmoidF(g)), u), weight), out);
    });
  }
}

// s = sigmoid(g):  dup = dy weight g s,  dgate = dy weight u s (1 + g (1 - s)),  d_weight = sum dy g s u.
void SwigluBackwardRows(const ConstView& dy, const ConstView& gate, const ConstView& up, const float* row_weight, const View& dgate,
                        const View& dup, float* d_row_weight) {
  const int64_t f = gate.dim(1);
  const VF one = hn::Set(DF(), 1.0f);
  for (int64_t t = 0; t < gate.dim(0); ++t) {
    const InRow d_row = RowAt(dy, t), g_row = RowAt(gate, t), u_row = RowAt(up, t);
    const OutRow dg_row = RowAt(dgate, t), du_row = RowAt(dup, t);
    const VF weight = hn::Set(DF(), row_weight == nullptr ? 1.0f : row_weight[t]);
    const double dot = RowSum(f, [&](auto at, VF sum) {
      const VF d = Load(at, d_row), g = Load(at, g_row), u = Load(at, u_row);
      const VF s = SigmoidF(g), silu = hn::Mul(g, s), dw = hn::Mul(d, weight);
      Store(at, hn::Mul(dw, silu), du_row);
      Store(at, hn::Mul(hn::Mul(dw, u), hn::Mul(s, hn::MulAdd(g, hn::Sub(one, s), one))), dg_row);
      return hn::MulAdd(hn::Mul(d, silu), u, sum);
    });
    if (d_row_weight != nullptr) d_row_weight[t] = static_cast<float>(dot);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(SwigluForwardRows);
HWY_EXPORT(SwigluBackwardRows);

void SwigluForward(ConstView gate, ConstView up, std::span<const float> row_weight, View y) {
  const int64_t rows = gate.dim(0), f = gate.dim(1);
  FATHOM_CHECK(IsMatrix(gate, rows, f) && IsMatrix(up, rows, f) && IsMatrix(y, rows, f), "gate {}, up {}, y {}", gate.shape().ToString(),
               up.shape().ToString(), y.shape().ToString());
  FATHOM_CHECK(row_weight.empty() || std::ssize(row_weight) == rows, "{} row weights", row_weight.size());
  const float* weight = row_weight.empty() ? nullptr : row_weight.data();
  ParallelRanges(rows, RowGrain(f), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SwigluForwardRows)
    (gate.Rows(begin, end), up.Rows(begin, end), weight == nullptr ? nullptr : weight + begin, y.Rows(begin, end));
  });
}

void SwigluBackward(ConstView dy, ConstView gate, ConstView up, std::span<const float> row_weight, View dgate, View dup,
                    std::span<float> d_row_weight) {
  const int64_t rows = gate.dim(0), f = gate.dim(1);
  FATHOM_CHECK(
      IsMatrix(gate, rows, f) && IsMatrix(up, rows, f) && IsMatrix(dy, rows, f) && IsMatrix(dgate, rows, f) && IsMatrix(dup, rows, f),
      "gate {}, up {}, dy {}", gate.shape().ToString(), up.shape().ToString(), dy.shape().ToString());
  FATHOM_CHECK((row_weight.empty() || std::ssize(row_weight) == rows) && (d_row_weight.empty() || std::ssize(d_row_weight) == rows),
               "{} and {} row weights", row_weight.size(), d_row_weight.size());
  const float* weight = row_weight.empty() ? nullptr : row_weight.data();
  float* d_weight = d_row_weight.empty() ? nullptr : d_row_weight.data();
  ParallelRanges(rows, RowGrain(f), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SwigluBackwardRows)
    (dy.Rows(begin, end), gate.Rows(begin, end), up.Rows(begin, end), weight == nullptr ? nullptr : weight + begin, dgate.Rows(begin, end),
     dup.Rows(begin, end), d_weight == nullptr ? nullptr : d_weight + begin);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

#include "fathom/kernels/elementwise/adamw.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/elementwise/adamw.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "fathom/kernels/elementwise/rounding-inl.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

struct Factors {
  float b1, one_minus_b1, b2, one_minus_b2, m_scale, g_scale, v_scale, eps, eps_root, learning_rate, decay, grad_scale;
};
// Rows whose element 0 is element `first` of the tensors.
struct Rows {
  OutRow w, m, v;
  InRow g;
  BF16* copy;
  int64_t first;
};

void AdamWRange(const Factors& f, const Rows& rows, const Rounding& rounding, int64_t n) {
  const auto& [w, m, v, g, copy, first] = rows;
  const Rounding of_m = rounding.WithKey(rounding.key ^ 0x9e3779b9u), of_v = rounding.WithKey(rounding.key ^ 0x7f4a7c15u);
  const DF d;
  ForVectors(n, [&](auto at) {
    const VF grad = hn::Mul(Load(at, g), hn::Set(d, f.grad_scale)), weight = Load(at, w);
    const VF mean = hn::MulAdd(Load(at, m), hn::Set(d, f.b1), hn::Mul(grad, hn::Set(d, f.one_minus_b1)));
    const VF square = hn::MulAdd(Load(at, v), hn::Set(d, f.b2), hn::Mul(hn::Mul(grad, grad), hn::Set(d, f.one_minus_b2)));
    StoreRounded(at, mean, m, of_m, first);
    StoreRounded(at, square, v, of_v, first);
    const VF root = hn::Sqrt(hn::MulAdd(square, hn::Set(d, f.v_scale), hn::Set(d, f.eps_root)));
    const VF ahead = hn::MulAdd(grad, hn::Set(d, f.g_scale), hn::Mul(mean, hn::Set(d, f.m_scale)));
    const VF step = hn::Div(ahead, hn::Add(root, hn::Set(d, f.eps)));
    const VF updated = hn::NegMulAdd(hn::Set(d, f.learning_rate), hn::MulAdd(weight, hn::Set(d, f.decay), step), weight);
    StoreRounded(at, updated, w, rounding, first);
    if (copy != nullptr) at.Store(updated, copy);
  });
}

void SgdRange(const SgdStep& s, const OutRow& w, const InRow& g, BF16* copy, int64_t first, int64_t n) {
  const DF d;
  ForVectors(n, [&](auto at) {
    const VF weight = Load(at, w);
    const VF step = hn::MulAdd(weight, hn::Set(d, s.weight_decay), hn::Mul(Load(at, g), hn::Set(d, s.grad_scale)));
    const VF updated = hn::NegMulAdd(hn::Set(d, s.learning_rate), step, weight);
    StoreRounded(at, updated, w, s.rounding, first);
    if (copy != nullptr) at.Store(updated, copy);
  });
}

BF16* CopyAt(const View& copy, int64_t begin) { return copy.empty() ? nullptr : copy.data<BF16>() + begin; }

void AdamWSlice(const AdamWStep& s, const AdamWTensors& x, int64_t begin, int64_t end) {
  const double t = static_cast<double>(s.t), b1 = s.b1, b2 = s.b2;
  const Factors f = {.b1 = s.b1,
                     .one_minus_b1 = static_cast<float>(1 - b1),
                     .b2 = s.b2,
                     .one_minus_b2 = static_cast<float>(1 - b2),
                     .m_scale = static_cast<float>(s.nesterov ? b1 / (1 - std::pow(b1, t + 1)) : 1 / (1 - std::pow(b1, t))),
                     .g_scale = static_cast<float>(s.nesterov ? (1 - b1) / (1 - std::pow(b1, t)) : 0),
                     .v_scale = static_cast<float>(1 / (1 - std::pow(b2, t))),
                     .eps = s.eps,
                     .eps_root = s.eps_root,
                     .learning_rate = s.learning_rate,
                     .decay = s.weight_decay,
                     .grad_scale = s.grad_scale};
  const Rows rows{ElementsAt(x.w, begin), ElementsAt(x.m, begin),     ElementsAt(x.v, begin),
                  ElementsAt(x.g, begin), CopyAt(x.bf16_copy, begin), begin};
  AdamWRange(f, rows, s.rounding, end - begin);
}

void SgdSlice(const SgdStep& s, const View& w, const ConstView& g, const View& copy, int64_t begin, int64_t end) {
  SgdRange(s, ElementsAt(w, begin), ElementsAt(g, begin), CopyAt(copy, begin), begin, end - begin);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(AdamWSlice);
HWY_EXPORT(SgdSlice);

void AdamWUpdate(const AdamWStep& step, const AdamWTensors& t) {
  const auto& [w, m, v, g, copy] = t;
  const int64_t n = w.NumElements();
  FATHOM_CHECK(IsVector(w, n) && IsVector(m, n) && IsVector(v, n) && IsF32Vector(g, n) && step.t >= 1, "w {}, m {}, v {}, g {}, step {}",
               w.shape().ToString(), m.shape().ToString(), v.shape().ToString(), g.shape().ToString(), step.t);
  FATHOM_CHECK(copy.empty() || IsVector(copy, n), "copy {}", copy.shape().ToString());
  ParallelRanges(n, kElementGrain, [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(AdamWSlice)(step, t, begin, end); });
}

void SgdUpdate(const SgdStep& step, View w, ConstView g, View bf16_copy) {
  const int64_t n = w.NumElements();
  FATHOM_CHECK(IsVector(w, n) && IsF32Vector(g, n) && (bf16_copy.empty() || IsVector(bf16_copy, n)), "w {}, g {}, copy {}",
               w.shape().ToString(), g.shape().ToString(), bf16_copy.shape().ToString());
  ParallelRanges(n, kElementGrain, [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(SgdSlice)(step, w, g, bf16_copy, begin, end); });
}

}  // namespace fathom
#endif  // HWY_ONCE

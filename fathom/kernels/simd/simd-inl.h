// Vector helpers shared by the kernels: typed loads and stores with remainders, sums, exp. Included once per SIMD target, after
// foreach_target.h. Rows are f32 in registers whatever is stored.
#if defined(FATHOM_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_SIMD_INL_H_
#undef FATHOM_KERNELS_SIMD_INL_H_
#else
#define FATHOM_KERNELS_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "fathom/base/types.h"
#include "fathom/tensor/view.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using DF = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using DD = hn::ScalableTag<double>;
using VF = hn::Vec<DF>;
using VD = hn::Vec<DD>;
inline constexpr int64_t kMaxLanes = HWY_MAX_BYTES / 4;

inline int64_t LanesF() { return static_cast<int64_t>(hn::Lanes(DF())); }

// ---- loads: any alignment, result in f32
HWY_INLINE VF LoadF(const float* p) { return hn::LoadU(DF(), p); }
HWY_INLINE VF LoadF(const BF16* p) {
  const hn::Rebind<uint16_t, DF> d16;
  const DU du;
  return hn::BitCast(DF(), hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)))));
}
HWY_INLINE VF LoadF(const F16* p) {
  const hn::Rebind<hwy::float16_t, DF> d16;
  return hn::PromoteTo(DF(), hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}
// The first n lanes, zeros behind them; reads nothing beyond.
template <class T>
HWY_INLINE VF LoadN(const T* p, int64_t n) {
  alignas(64) T lanes[kMaxLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(n) * sizeof(T));
  return LoadF(lanes);
}

// ---- stores: any alignment, BF16 rounds to nearest even and keeps NaN
HWY_INLINE void StoreF(VF v, float* p) { hn::StoreU(v, DF(), p); }
// The bits of v, its upper half rounded to the nearest BF16 (the lower half is left over).
HWY_INLINE hn::Vec<DU> RoundedBits(VF v) {
  const DU du;
  const auto bits = hn::BitCast(du, v);
  const auto lsb = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1));
  const auto rounded = hn::Add(bits, hn::Add(lsb, hn::Set(du, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000));
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(v)), quiet, rounded);
}
HWY_INLINE void StoreF(VF v, BF16* p) {
  const hn::Rebind<uint16_t, DF> d16;
  hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(RoundedBits(v))), d16, reinterpret_cast<uint16_t*>(p));
}
template <class T>
HWY_INLINE void StoreN(VF v, T* p, int64_t n) {
  alignas(64) T lanes[kMaxLanes];
  StoreF(v, lanes);
  std::memcpy(p, lanes, static_cast<size_t>(n) * sizeof(T));
}

// ---- rows whose type is known at run time: one well-predicted branch per vector, and a kernel is compiled once for all types.
struct InRow {
  const std::byte* data;
  DType dtype;  // F32, BF16, F16
};
struct OutRow {
  std::byte* data;
  DType dtype;  // F32, BF16
};
inline InRow RowAt(const ConstView& v, int64_t i) { return {v.raw() + i * v.stride() * DTypeSize(v.dtype()), v.dtype()}; }
inline OutRow RowAt(const View& v, int64_t i) { return {v.raw() + i * v.stride() * DTypeSize(v.dtype()), v.dtype()}; }
// Element i of a contiguous view, as the start of a row.
inline InRow ElementsAt(const ConstView& v, int64_t i) { return {v.raw() + i * DTypeSize(v.dtype()), v.dtype()}; }
inline OutRow ElementsAt(const View& v, int64_t i) { return {v.raw() + i * DTypeSize(v.dtype()), v.dtype()}; }

// One vector of a row, at element i. The remainder goes through the same arithmetic with zeros behind it, so an element's bits do not
// depend on where a row was cut.
struct WholeVector {
  int64_t i;
  template <class T>
  HWY_INLINE VF Load(const T* p) const {
    return LoadF(p + i);
  }
  template <class T>
  HWY_INLINE void Store(VF v, T* p) const {
    StoreF(v, p + i);
  }
  HWY_INLINE VF Mask(VF v) const { return v; }
  HWY_INLINE hn::Mask<DF> Valid() const { return hn::FirstN(DF(), hn::Lanes(DF())); }
};
struct PartVector {
  int64_t i, n;
  template <class T>
  HWY_INLINE VF Load(const T* p) const {
    return LoadN(p + i, n);
  }
  template <class T>
  HWY_INLINE void Store(VF v, T* p) const {
    StoreN(v, p + i, n);
  }
  // Lanes within the row; zeros in the others.
  HWY_INLINE hn::Mask<DF> Valid() const { return hn::FirstN(DF(), static_cast<size_t>(n)); }
  HWY_INLINE VF Mask(VF v) const { return hn::IfThenElseZero(Valid(), v); }
};
template <class At>
HWY_INLINE VF Load(const At& at, const InRow& row) {
  if (row.dtype == DType::kF32) return at.Load(reinterpret_cast<const float*>(row.data));
  if (row.dtype == DType::kBF16) return at.Load(reinterpret_cast<const BF16*>(row.data));
  return at.Load(reinterpret_cast<const F16*>(row.data));
}
template <class At>
HWY_INLINE VF Load(const At& at, const OutRow& row) {
  return Load(at, InRow{row.data, row.dtype});
}
template <class At>
HWY_INLINE VF Load(const At& at, const float* row) {
  return at.Load(row);
}
template <class At>
HWY_INLINE void Store(const At& at, VF v, const OutRow& row) {
  if (row.dtype == DType::kF32) {
    at.Store(v, reinterpret_cast<float*>(row.data));
  } else {
    at.Store(v, reinterpret_cast<BF16*>(row.data));
  }
}
template <class At>
HWY_INLINE void Store(const At& at, VF v, float* row) {
  at.Store(v, row);
}

// f(at) for the vectors of elements begin..end of a row.
template <class F>
HWY_INLINE void ForVectors(int64_t begin, int64_t end, const F& f) {
  const int64_t lanes = LanesF();
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) f(WholeVector{i});
  if (i < end) f(PartVector{i, end - i});
}
template <class F>
HWY_INLINE void ForVectors(int64_t n, const F& f) {
  ForVectors(0, n, f);
}

// ---- sums
HWY_INLINE double LaneSum(VF v) {
  alignas(64) float lanes[kMaxLanes];
  hn::Store(v, DF(), lanes);
  double sum = 0;
  for (int64_t i = 0; i < LanesF(); ++i) sum += lanes[i];
  return sum;
}

// Sum over elements begin..end of a row in f32, in four accumulators added up in double.
template <class F>
HWY_INLINE double BlockSum(int64_t begin, int64_t end, const F& term) {
  const int64_t lanes = LanesF();
  VF a = hn::Zero(DF()), b = a, c = a, e = a;
  int64_t i = begin;
  for (; i + 4 * lanes <= end; i += 4 * lanes) {
    a = term(WholeVector{i}, a);
    b = term(WholeVector{i + lanes}, b);
    c = term(WholeVector{i + 2 * lanes}, c);
    e = term(WholeVector{i + 3 * lanes}, e);
  }
  for (; i + lanes <= end; i += lanes) a = term(WholeVector{i}, a);
  if (i < end) b = term(PartVector{i, end - i}, b);
  return LaneSum(hn::Add(a, b)) + LaneSum(hn::Add(c, e));
}

// Sum over a row of n elements: term(at, sum) adds one vector to sum. f32 within blocks of 256 vectors (at most 66 terms in a lane),
// double across them. term must add 0 for the zeros behind a remainder.
template <class F>
HWY_INLINE double RowSum(int64_t n, const F& term) {
  const int64_t block = 256 * LanesF();
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += block) sum += BlockSum(begin, begin + block < n ? begin + block : n, term);
  return sum;
}

// ---- e^x, within 1.01 ulp (1.1 where the result is subnormal): e^x = 2^n e^r, |r| <= ln(2)/2, Taylor to r^7 (remainder below 6e-9). NaN
// stays NaN; 0 below -104, inf above 89.
HWY_INLINE VF ExpF(VF x) {
  const DF d;
  const DI di;
  const VF bounded = hn::Min(hn::Max(x, hn::Set(d, -104.0f)), hn::Set(d, 89.0f));
  const VF n = hn::Round(hn::Mul(bounded, hn::Set(d, 1.44269504f)));
  // ln 2 in two parts; the first has few bits, so n times it is exact with or without fused multiply-add.
  VF r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), bounded);
  r = hn::NegMulAdd(n, hn::Set(d, -2.12194440e-4f), r);
  VF q = hn::Set(d, 1.0f / 5040);
  q = hn::MulAdd(q, r, hn::Set(d, 1.0f / 720));
  q = hn::MulAdd(q, r, hn::Set(d, 1.0f / 120));
  q = hn::MulAdd(q, r, hn::Set(d, 1.0f / 24));
  q = hn::MulAdd(q, r, hn::Set(d, 1.0f / 6));
  q = hn::MulAdd(q, r, hn::Set(d, 0.5f));
  const VF p = hn::Add(hn::Set(d, 1.0f), hn::MulAdd(q, hn::Mul(r, r), r));
  // 2^n in two factors: n reaches from -150 (subnormal results) to 128.
  const auto whole = hn::ConvertTo(di, n);
  const auto half = hn::ShiftRight<1>(whole);
  const auto bias = hn::Set(di, 127);
  const VF first = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const VF second = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::Sub(whole, half), bias)));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Mul(hn::Mul(p, first), second));
}

HWY_INLINE VF SigmoidF(VF x) {
  const VF one = hn::Set(DF(), 1.0f);
  return hn::Div(one, hn::Add(one, ExpF(hn::Neg(x))));
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

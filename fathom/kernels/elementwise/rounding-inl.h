// Stores that round by chance. Once per SIMD target.
#if defined(FATHOM_KERNELS_ROUNDING_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_ROUNDING_INL_H_
#undef FATHOM_KERNELS_ROUNDING_INL_H_
#else
#define FATHOM_KERNELS_ROUNDING_INL_H_
#endif

#include "fathom/kernels/elementwise/rounding.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// 32 random bits for each of the elements from i on.
HWY_INLINE hn::Vec<DU> RandomWords(uint32_t key, int64_t i) {
  const DU du;
  auto x = hn::Iota(du, key + static_cast<uint32_t>(i));
  x = hn::Mul(hn::Xor(x, hn::ShiftRight<16>(x)), hn::Set(du, 0x7feb352du));
  x = hn::Mul(hn::Xor(x, hn::ShiftRight<15>(x)), hn::Set(du, 0x846ca68bu));
  return hn::Xor(x, hn::ShiftRight<16>(x));
}

// A BF16 neighbour of v, by the lower halves of the draws; infinities and NaN stay.
HWY_INLINE VF RoundedByChance(VF v, hn::Vec<DU> draws) {
  const DU du;
  const auto rounded = hn::Add(hn::BitCast(du, v), hn::And(draws, hn::Set(du, 0xffff)));
  return hn::IfThenElse(hn::IsNaN(v), v, hn::BitCast(DF(), hn::And(rounded, hn::Set(du, 0xffff0000u))));
}

// v to a row whose element 0 is element `first` of what is rounded.
template <class At>
HWY_INLINE void StoreRounded(const At& at, VF v, const OutRow& row, const Rounding& rounding, int64_t first) {
  const bool by_chance = rounding.by_chance && row.dtype == DType::kBF16;
  Store(at, by_chance ? RoundedByChance(v, RandomWords(rounding.key, rounding.first + first + at.i)) : v, row);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

// E4M3 codes to f32 and back, and their block scales. Included once per SIMD target.
#if defined(FATHOM_KERNELS_FP8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_FP8_INL_H_
#undef FATHOM_KERNELS_FP8_INL_H_
#else
#define FATHOM_KERNELS_FP8_INL_H_
#endif

#include <bit>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Value of each code in the low byte of a lane, exact; S.1111.111 gives NaN.
HWY_INLINE VF DecodeE4M3(hn::Vec<DU> codes) {
  const DF d;
  const DU du;
  const auto magnitude = hn::And(codes, hn::Set(du, 0x7f));
  const auto sign = hn::ShiftLeft<24>(hn::And(codes, hn::Set(du, 0x80)));
  const auto normal = hn::Add(hn::ShiftLeft<20>(magnitude), hn::Set(du, (127 - 7) << 23));
  // Subnormal codes are small integers times 2^-9; built this way no subnormal float is ever touched.
  const VF small = hn::Mul(hn::ConvertTo(d, hn::BitCast(DI(), magnitude)), hn::Set(d, 0x1p-9f));
  auto bits = hn::IfThenElse(hn::Lt(magnitude, hn::Set(du, 8)), hn::BitCast(du, small), normal);
  bits = hn::IfThenElse(hn::Eq(magnitude, hn::Set(du, 0x7f)), hn::Set(du, 0x7fc00000u), bits);
  return hn::BitCast(d, hn::Or(bits, sign));
}

// E4M3 code of each lane, to nearest even, saturating at 448; NaN gives S.1111.111.
HWY_INLINE hn::Vec<DU> EncodeE4M3(VF x) {
  const DF d;
  const DU du;
  const VF magnitude = hn::Abs(x);
  const auto bits = hn::BitCast(du, magnitude);
  const auto sign = hn::And(hn::ShiftRight<24>(hn::BitCast(du, x)), hn::Set(du, 0x80));
  const auto odd = hn::And(hn::ShiftRight<20>(bits), hn::Set(du, 1));
  const auto rounded = hn::ShiftRight<20>(hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7ffff))));
  const auto normal = hn::Sub(rounded, hn::Set(du, (127 - 7) << 3));
  // Below 2^-6 codes count steps of 2^-9; adding 2^23 rounds to a whole number of them.
  const auto small = hn::BitCast(du, hn::Add(hn::Mul(magnitude, hn::Set(d, 512.0f)), hn::Set(d, 0x1p23f)));
  auto code = hn::IfThenElse(hn::RebindMask(du, hn::Lt(magnitude, hn::Set(d, 0x1p-6f))), hn::And(small, hn::Set(du, 0xff)), normal);
  code = hn::IfThenElse(hn::RebindMask(du, hn::Ge(magnitude, hn::Set(d, 448.0f))), hn::Set(du, 0x7e), code);
  code = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), hn::Set(du, 0x7f), code);
  return hn::Or(code, sign);
}

HWY_INLINE VF LoadCodes(const WholeVector& at, const uint8_t* codes) {
  const hn::Rebind<uint8_t, DF> d8;
  return DecodeE4M3(hn::PromoteTo(DU(), hn::LoadU(d8, codes + at.i)));
}
HWY_INLINE VF LoadCodes(const PartVector& at, const uint8_t* codes) {
  alignas(64) uint8_t lanes[kMaxLanes] = {};
  std::memcpy(lanes, codes + at.i, static_cast<size_t>(at.n));
  return LoadCodes(WholeVector{0}, lanes);
}

// The scale of a block: F32, or E8M0 (2^(code-127), of which the smallest is subnormal).
inline float BlockScale(const ConstView& scale, int64_t block_row, int64_t block_column) {
  if (scale.dtype() == DType::kF32) return scale.row<float>(block_row)[block_column];
  const uint32_t code = scale.row<F8E8M0>(block_row)[block_column].bits;
  return std::bit_cast<float>(code == 255 ? 0x7fc00000u : code == 0 ? 0x00400000u : code << 23);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

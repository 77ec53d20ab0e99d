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

// A vector of BF16 pairs gives its even elements by a shift and its odd ones by a mask.
HWY_INLINE VF EvenBF16(hn::Vec<DU> pairs) { return hn::BitCast(DF(), hn::ShiftLeft<16>(pairs)); }
HWY_INLINE VF OddBF16(hn::Vec<DU> pairs) { return hn::BitCast(DF(), hn::And(pairs, hn::Set(DU(), 0xffff0000u))); }

#if HWY_TARGET == HWY_AVX3_DL

// A line of 64 codes as BF16 values, exact: two look-ups over the 128 magnitudes give the upper and the lower byte of each value. The
// bytes are zipped within 128 bits, so the first vector holds elements 0-7 of every 16, the second elements 8-15.
struct DecodedFP8 {
  __m512i low, high;
};

// Bytes of the BF16 value of every magnitude.
struct TablesFP8 {
  alignas(64) uint8_t upper[128];
  alignas(64) uint8_t lower[128];
};
constexpr TablesFP8 MakeTablesFP8() {
  TablesFP8 t{};
  for (uint32_t code = 0; code < 128; ++code) {
    uint32_t exponent = code >> 3, mantissa = code & 7, bits = (exponent + 127 - 7) << 7 | mantissa << 4;
    if (exponent == 0) {  // mantissa * 2^-9, normalised
      bits = 0;
      for (uint32_t e = 1, m = mantissa; m > 0 && bits == 0; --e, m <<= 1) {
        if (m & 8) bits = (e + 127 - 7) << 7 | (m & 7) << 4;
      }
    }
    if (code == 0x7f) bits = 0x7fc0;
    t.upper[code] = static_cast<uint8_t>(bits >> 8);
    t.lower[code] = static_cast<uint8_t>(bits & 0xff);
  }
  return t;
}
inline constexpr TablesFP8 kTablesFP8 = MakeTablesFP8();

HWY_INLINE DecodedFP8 DecodeLine(__m512i c) {
  const __m512i magnitude_upper =
      _mm512_permutex2var_epi8(_mm512_load_si512(kTablesFP8.upper), c, _mm512_load_si512(kTablesFP8.upper + 64));
  const __m512i lower = _mm512_permutex2var_epi8(_mm512_load_si512(kTablesFP8.lower), c, _mm512_load_si512(kTablesFP8.lower + 64));
  // a | (b & c)
  const __m512i upper = _mm512_ternarylogic_epi64(magnitude_upper, c, _mm512_set1_epi8(static_cast<char>(0x80)), 0xf8);
  return {_mm512_unpacklo_epi8(lower, upper), _mm512_unpackhi_epi8(lower, upper)};
}

// Where the codes of a line go before they are decoded, so that its even and odd elements are runs of 16.
struct RunsOfCodes {
  alignas(64) uint8_t from[64];
};
constexpr RunsOfCodes MakeRunsOfCodes() {
  RunsOfCodes runs{};
  for (uint32_t byte = 0; byte < 64; ++byte) {
    const uint32_t word = byte / 16 * 8 + byte % 8, half = byte / 8 % 2;
    runs.from[byte] = static_cast<uint8_t>(32 * half + 16 * (word % 2) + word / 2);
  }
  return runs;
}
inline constexpr RunsOfCodes kRunsOfCodes = MakeRunsOfCodes();

// f(at, values) for the whole lines of codes [begin, end); returns where they end.
template <class F>
HWY_INLINE int64_t ForCodeLines(const uint8_t* codes, int64_t begin, int64_t end, const F& f) {
  const __m512i runs = _mm512_load_si512(kRunsOfCodes.from);
  for (; begin + 64 <= end; begin += 64) {
    const DecodedFP8 d = DecodeLine(_mm512_permutexvar_epi8(runs, _mm512_loadu_si512(codes + begin)));
    const hn::Vec<DU> low{d.low}, high{d.high};
    f(WholeVector{begin}, EvenBF16(low));
    f(WholeVector{begin + 16}, OddBF16(low));
    f(WholeVector{begin + 32}, EvenBF16(high));
    f(WholeVector{begin + 48}, OddBF16(high));
  }
  return begin;
}

#else

template <class F>
HWY_INLINE int64_t ForCodeLines(const uint8_t*, int64_t begin, int64_t, const F&) {
  return begin;
}

#endif

// f(at, values) for codes [begin, end), vector by vector.
template <class F>
HWY_INLINE void ForCodes(const uint8_t* codes, int64_t begin, int64_t end, const F& f) {
  begin = ForCodeLines(codes, begin, end, f);
  ForVectors(begin, end, [&](auto at) { f(at, LoadCodes(at, codes)); });
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

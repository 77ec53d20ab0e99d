// Storage types that C++ lacks. Arithmetic happens in float: these only convert.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace fathom {

// bfloat16: the upper half of a float.
struct BF16 {
  uint16_t bits;
  friend bool operator==(BF16, BF16) = default;
};

// IEEE half precision.
struct F16 {
  uint16_t bits;
  friend bool operator==(F16, F16) = default;
};

// float8_e4m3fn: 1 sign, 4 exponent (bias 7), 3 mantissa bits; no infinity, NaN is S.1111.111, largest 448.
struct F8E4M3 {
  uint8_t bits;
  friend bool operator==(F8E4M3, F8E4M3) = default;
};

// float8_e8m0fnu: a power of two, 2^(bits-127); 255 is NaN. Only used for block scales.
struct F8E8M0 {
  uint8_t bits;
  friend bool operator==(F8E8M0, F8E8M0) = default;
};

inline float ToFloat(float x) { return x; }
inline float ToFloat(BF16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
float ToFloat(F16 x);
float ToFloat(F8E4M3 x);
inline float ToFloat(F8E8M0 x) {
  if (x.bits == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0f, static_cast<int>(x.bits) - 127);
}

// Round to nearest even; NaN stays NaN, overflow becomes infinity.
inline BF16 ToBF16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return BF16{static_cast<uint16_t>((u >> 16) | 0x40u)};
  return BF16{static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}
F16 ToF16(float x);
// Round to nearest even, saturating at +-448 as the hub's quantiser does; NaN stays NaN.
F8E4M3 ToF8E4M3(float x);

template <class T>
T FromFloat(float x);
template <>
inline float FromFloat<float>(float x) {
  return x;
}
template <>
inline BF16 FromFloat<BF16>(float x) {
  return ToBF16(x);
}
template <>
inline F16 FromFloat<F16>(float x) {
  return ToF16(x);
}
template <>
inline F8E4M3 FromFloat<F8E4M3>(float x) {
  return ToF8E4M3(x);
}

// The value of x after rounding to bf16.
inline float RoundToBF16(float x) { return ToFloat(ToBF16(x)); }

}  // namespace fathom

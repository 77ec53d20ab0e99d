#include "fathom/base/types.h"

namespace fathom {

float ToFloat(F16 x) {
  const int exponent = (x.bits >> 10) & 0x1f;
  const int mantissa = x.bits & 0x3ff;
  float magnitude;
  if (exponent == 0x1f) {
    magnitude = mantissa ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return (x.bits & 0x8000u) ? -magnitude : magnitude;
}

F16 ToF16(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000u : 0u;
  if (std::isnan(x)) return F16{static_cast<uint16_t>(sign | 0x7e00u)};
  const float a = std::fabs(x);
  if (a == 0) return F16{sign};
  if (a >= 65520.0f) return F16{static_cast<uint16_t>(sign | 0x7c00u)};
  int exponent;
  std::frexp(a, &exponent);  // a = m * 2^exponent, m in [0.5, 1)
  // Spacing of the representable numbers around a: 2^(exponent-11), at least the subnormal step 2^-24.
  const int step = exponent - 11 < -24 ? -24 : exponent - 11;
  const auto units = static_cast<uint32_t>(std::nearbyint(std::ldexp(a, -step)));
  if (step == -24) return F16{static_cast<uint16_t>(sign | units)};
  // units in [1024, 2048]; 2048 carries into the exponent by plain addition.
  return F16{static_cast<uint16_t>(sign | ((static_cast<uint32_t>(step + 24) << 10) + units))};
}

float ToFloat(F8E4M3 x) {
  const int exponent = (x.bits >> 3) & 0xf;
  const int mantissa = x.bits & 0x7;
  float magnitude;
  if (exponent == 0xf && mantissa == 0x7) {
    magnitude = std::numeric_limits<float>::quiet_NaN();
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -9);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 8), exponent - 10);
  }
  return (x.bits & 0x80u) ? -magnitude : magnitude;
}

F8E4M3 ToF8E4M3(float x) {
  const uint8_t sign = std::signbit(x) ? 0x80u : 0u;
  if (std::isnan(x)) return F8E4M3{static_cast<uint8_t>(sign | 0x7fu)};
  const float a = std::fabs(x);
  if (a == 0) return F8E4M3{sign};
  if (a >= 448.0f) return F8E4M3{static_cast<uint8_t>(sign | 0x7eu)};
  int exponent;
  std::frexp(a, &exponent);
  const int step = exponent - 4 < -9 ? -9 : exponent - 4;
  const auto units = static_cast<uint32_t>(std::nearbyint(std::ldexp(a, -step)));
  if (step == -9) return F8E4M3{static_cast<uint8_t>(sign | units)};
  return F8E4M3{static_cast<uint8_t>(sign | ((static_cast<uint32_t>(step + 9) << 3) + units))};
}

}  // namespace fathom

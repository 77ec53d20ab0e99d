// The obvious rounding by chance, of one value.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace fathom {

// 32 bits of element i: Wellons' "lowbias32" of a counter.
inline uint32_t RandomWordRef(uint32_t key, uint32_t i) {
  uint32_t x = key + i;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// The BF16 below or above v in size: above with the probability of v's distance from the one below, in steps. draw: below 2^16.
inline float RoundByChanceRef(float v, uint32_t draw) {
  if (std::isnan(v)) return v;
  const auto bits = std::bit_cast<uint32_t>(v);
  return std::bit_cast<float>(((bits & 0xffff) + draw >= 0x10000 ? bits + 0x10000 : bits) & 0xffff0000);
}

}  // namespace fathom

// Tile by tile, with the scalar conversions of base/types.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "fathom/base/types.h"
#include "fathom/kernels/quant/fp8_quantize.h"

namespace fathom {

inline std::vector<float> RoundToFp8Ref(const std::vector<float>& x, int64_t rows, int64_t k, Fp8Tile tile, bool power_of_two) {
  const int64_t height = tile == Fp8Tile::k1x128 ? 1 : 128, width = tile == Fp8Tile::k128x1 ? 1 : 128, across = (k + width - 1) / width;
  const auto tile_of = [&](int64_t i) { return static_cast<size_t>(i / k / height * across + i % k / width); };
  std::vector<float> scale(static_cast<size_t>((rows + height - 1) / height * across), 0.0f), y;
  for (int64_t i = 0; i < rows * k; ++i) {
    const float magnitude = std::fabs(x[static_cast<size_t>(i)]);
    if (magnitude > scale[tile_of(i)]) scale[tile_of(i)] = magnitude;
  }
  for (float& s : scale) {
    s = s == 0 ? 1.0f : std::max(s / 448.0f, 0x1p-126f);
    if (power_of_two) s = static_cast<float>(std::exp2(std::ceil(std::log2(static_cast<double>(s)))));
  }
  for (int64_t i = 0; i < rows * k; ++i) {
    const float s = scale[tile_of(i)];
    y.push_back(ToFloat(ToF8E4M3(x[static_cast<size_t>(i)] / s)) * s);
  }
  return y;
}

}  // namespace fathom

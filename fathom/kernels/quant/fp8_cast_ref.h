// Element by element, with the scalar conversions of base/types.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "fathom/base/types.h"
#include "fathom/tensor/view.h"

namespace fathom {

// Scales as floats, row by row.
template <class T>
std::vector<T> DequantizeFp8Ref(const std::vector<F8E4M3>& codes, const std::vector<float>& scale, int64_t rows, int64_t k,
                                int64_t first_row) {
  std::vector<T> y;
  const int64_t blocks = (k + kScaleBlock - 1) / kScaleBlock;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < k; ++i) {
      const float s = scale[static_cast<size_t>((first_row + r) / kScaleBlock * blocks + i / kScaleBlock)];
      y.push_back(FromFloat<T>(ToFloat(codes[static_cast<size_t>(r * k + i)]) * s));
    }
  }
  return y;
}

// The recipe alone, without the search for a scale that reproduces.
inline void QuantizeFp8Ref(const std::vector<float>& x, int64_t rows, int64_t k, bool ue8m0, std::vector<F8E4M3>& codes,
                           std::vector<float>& scale) {
  const int64_t blocks = (k + kScaleBlock - 1) / kScaleBlock;
  scale.assign(static_cast<size_t>((rows + kScaleBlock - 1) / kScaleBlock * blocks), 0.0f);
  codes.resize(x.size());
  const auto block_of = [&](int64_t r, int64_t i) { return static_cast<size_t>(r / kScaleBlock * blocks + i / kScaleBlock); };
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < k; ++i) scale[block_of(r, i)] = std::max(scale[block_of(r, i)], std::fabs(x[static_cast<size_t>(r * k + i)]));
  }
  for (float& s : scale) {
    s = s == 0 ? 1.0f : std::max(s / 448.0f, 0x1p-126f);
    if (ue8m0) s = std::exp2(std::ceil(std::log2(static_cast<double>(s))));
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < k; ++i)
      codes[static_cast<size_t>(r * k + i)] = ToF8E4M3(x[static_cast<size_t>(r * k + i)] / scale[block_of(r, i)]);
  }
}

}  // namespace fathom

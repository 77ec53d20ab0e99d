// Small matrix products on blocks in cache, for attention: compiled once per SIMD target in block_product.cc, declared per target
// in block_product-inl.h. Elements are f32, or pairs of BF16 in 32 bits (neighbours along the sum, the even one in the low half).
#pragma once

#include <cstdint>

namespace fathom {

// Widths of blocks are padded to this many elements, the widest vector of any target.
inline constexpr int64_t kBlockPad = 16;
inline constexpr int64_t PadBlock(int64_t n) { return (n + kBlockPad - 1) / kBlockPad * kBlockPad; }

// The left factor: element (i, k) is data[i * row + k * col], so a transposed block costs nothing.
struct BlockLeft {
  const float* data;
  int64_t row, col;
};
// A row-major block, its rows `stride` apart.
struct Block {
  float* data;
  int64_t stride;
};
struct ConstBlock {
  const float* data;
  int64_t stride;
  ConstBlock(const float* d, int64_t s) : data(d), stride(s) {}
  ConstBlock(const Block& b) : data(b.data), stride(b.stride) {}
};

// Of a product: c is m x n, the sum runs over k.
struct BlockSizes {
  int64_t m, n, k;
};

enum class Into { kOverwrite, kAdd, kScaleAdd };

}  // namespace fathom

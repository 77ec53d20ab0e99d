// What the attention kernels' plans share, independent of the SIMD target.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fathom/kernels/gemm/block_product.h"

namespace fathom {

// Keys are taken in blocks of this many, from a row's first one on; the order of every sum over keys follows from it.
inline constexpr int64_t kKeyBlock = 64;
inline constexpr int64_t kQueryBlock = 64;
// Blocks on the diagonal are multiplied in strips of this many rows, each up to where it is seen.
inline constexpr int64_t kTriangleStep = 12;

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// Which keys of a block each query of a block sees: query i < rows sees keys j < min(n, base + i). Transposed blocks of such queries
// (queries_t, scores) have rows of Wide() elements.
struct BlockSight {
  int64_t rows, n, base;
  int64_t Wide() const { return PadBlock(rows); }
  int64_t Seen(int64_t query) const { return std::clamp<int64_t>(base + query, 0, n); }
  bool Whole() const { return base >= n; }
};
// Hands out parts of one worker's scratch; with a null base it only counts.
class ScratchCursor {
 public:
  explicit ScratchCursor(float* base) : base_(base) {}
  float* Take(int64_t floats) {
    float* part = base_ == nullptr ? nullptr : base_ + used_;
    used_ += PadBlock(floats);
    return part;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

}  // namespace fathom

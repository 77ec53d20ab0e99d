// What the attention kernels' plans share, independent of the SIMD target.
#pragma once

#include <cstdint>
#include <limits>

#include "fathom/kernels/block_product.h"

namespace fathom {

// Keys are taken in blocks of this many, from a row's first one on; the order of every sum over keys follows from it.
inline constexpr int64_t kKeyBlock = 64;

// State of a row's softmax: the largest score so far and the sum of e^(score - largest).
struct RunningSoftmax {
  float largest = -std::numeric_limits<float>::infinity();
  float sum = 0;
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

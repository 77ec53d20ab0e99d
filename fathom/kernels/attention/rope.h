// Rotary position embedding on part of each head (Su et al., 2021).
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/view.h"

namespace fathom {

// Which pairs rotate together: kInterleaved (x0,x1),(x2,x3)... as MLA; kHalves (x0,x_{d/2})... as the indexer. The output keeps the
// pairing.
enum class RopePairs { kInterleaved, kHalves };
enum class RopeDirection { kForward, kInverse };  // kInverse: by minus the angle, the backward of kForward up to the table's scale

// Of each of `heads` heads, head_stride columns apart, the columns from `offset` on.
struct RopeColumns {
  int64_t heads, head_stride, offset;
};
struct RopeAngles {
  ConstView cos, sin;                  // [L,d/2] F32, one row per position (scaled by the model's table scale already)
  std::span<const int32_t> positions;  // [T] in 0..L-1
};

// x [T,*] F32|BF16 is rotated in place: d columns of every head.
void RopeRotate(View x, const RopeColumns& columns, const RopeAngles& angles, RopePairs pairs, RopeDirection direction);

}  // namespace fathom

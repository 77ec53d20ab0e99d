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

// cos [L,d/2] and sin [L,d/2] F32, one row per position (scaled by the model's table scale already).
// x [T,*] F32|BF16 is rotated in place: for each of `heads` heads the d columns from offset + h * head_stride.
// positions [T] in 0..L-1.
void RopeRotate(View x, int64_t heads, int64_t head_stride, int64_t offset, ConstView cos, ConstView sin,
                std::span<const int32_t> positions, RopePairs pairs, RopeDirection direction);

}  // namespace fathom

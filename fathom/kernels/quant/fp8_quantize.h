// DeepSeek-V3's FP8 training recipe (report, section 3.3.2) emulated: numbers pass through E4M3 with one scale per tile.
#pragma once

#include "fathom/kernels/quant/fp8_cast.h"
#include "fathom/tensor/view.h"

namespace fathom {

enum class Fp8Tile {
  k1x128,    // 128 neighbours in a row: activations and gradients, summed over columns
  k128x1,    // 128 rows of one column: the same when summed over rows (weight gradients)
  k128x128,  // weights
};

// y = code * scale in f32, rounded once to y's dtype; scale = amax(tile) / 448 (kUe8m0: up to a power of two),
// code = x / scale to nearest even. x and y [T,K] F32|BF16; tiles at the edge are smaller; y may be x.
// The bits are those of QuantizeFp8's recipe followed by DequantizeFp8. The gradient passes straight through.
void RoundToFp8(ConstView x, Fp8Tile tile, ScaleFormat format, View y);

}  // namespace fathom

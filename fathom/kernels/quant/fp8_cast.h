// Block-scaled FP8 to and from BF16 and F32. A weight [N,K] has one scale per 128 x 128 block: scale [ceil(N/128), ceil(K/128)].
#pragma once

#include <cstdint>

#include "fathom/tensor/view.h"

namespace fathom {

// y = f32(code) * f32(scale), then rounded to y's dtype, both to nearest even with subnormals kept (DeepSeek-V3's fp8_cast_bf16).
// codes [T,K] F8_E4M3: rows first_row .. first_row+T of the weight; scale F32 or F8_E8M0; y [T,K] BF16 or F32, overwritten.
void DequantizeFp8(ConstView codes, ConstView scale, int64_t first_row, View y);

enum class ScaleFormat { kF32, kUe8m0 };  // amax / 448; that rounded up to a power of two

// The hub's recipe: scale = amax(block) / 448, code = x / scale rounded to nearest even. A block of zeros has scale 1.
// x [T,K] BF16 or F32, from a block's first row on; codes [T,K] F8_E4M3 and scale [ceil(T/128), ceil(K/128)] F32 are overwritten.
// A BF16 block that is the image of FP8 codes under some scale gets such codes and a scale that give its bits back (the recipe's own
// if it does, else the one with the shortest mantissa), so that FP8 -> BF16 -> FP8 loses nothing that BF16 kept.
// Returns how many elements DequantizeFp8 would not give back bit for bit (F32 x: rounded to F32).
int64_t QuantizeFp8(ConstView x, ScaleFormat format, View codes, View scale);

}  // namespace fathom

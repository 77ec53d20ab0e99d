// Plain passes over arrays.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/view.h"

namespace fathom {

// y = x with y's dtype (F32, BF16, F16 in; F32, BF16 out; F16 out from F32, BF16); matrices, rows may be strided.
void Cast(ConstView x, View y);
// y = y * scale, F32, any shape, contiguous.
void Scale(float scale, View y);
// y += scale * x (x F32|BF16, y F32); matrices, rows may be strided.
void AddScaled(float scale, ConstView x, View y);
// Every element of x = value.
void Fill(float value, View x);
// Zeros in all of them, each contiguous; a thread has the same range of each (OwnRange of its bytes).
void ZeroEach(std::span<const View> views);
// Sum of squares in double over F32|BF16 elements, in fixed chunks (same bits for any number of threads).
double SumSquares(ConstView x);
// Sum in double, likewise.
double Sum(ConstView x);
// Any NaN or infinity in F32|BF16|F16|F64?
bool HasNonFinite(ConstView x);
// sum_i x_i y_i of each row: out [T] F32.  x, y [T,D] F32|BF16.
void RowDots(ConstView x, ConstView y, View out);

}  // namespace fathom

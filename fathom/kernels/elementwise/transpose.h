// Transposed copies of matrices.
#pragma once

#include "fathom/tensor/view.h"

namespace fathom {

// y[j,i] = x[i,j], bits unchanged.  x [R,C], y [C,R] of one dtype (1, 2, 4 or 8 bytes), rows may be strided. y is overwritten.
void Transpose(ConstView x, View y);

}  // namespace fathom

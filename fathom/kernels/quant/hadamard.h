// The Hadamard rotation with which DeepSeek-V3.2's official inference code spreads outliers before it rounds the indexer to FP8.
#pragma once

#include "fathom/tensor/view.h"

namespace fathom {

// x [R,D] F32, D a power of two: every row times H / sqrt(D), in place; H is Sylvester's matrix of +-1. Its own inverse.
void HadamardRotate(View x);

}  // namespace fathom

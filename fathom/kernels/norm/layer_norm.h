// Layer norm with bias, for the indexer's keys:  y = (x - mean) * rstd * w + b over the last axis.
#pragma once

#include <cstdint>

#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

// x [T,D] F32|BF16, w and b [D] F32|BF16; overwrites y [T,D] F32|BF16 and, unless empty, stats [T,2] F32 (mean, rstd).
void LayerNormForward(ConstView x, ConstView w, ConstView b, float eps, View y, View stats);

// dx [T,D] F32 is overwritten; dw, db [D] F32 are added to, unless empty (fixed order of the sum).
struct LayerNormGradients {
  View dx, dw, db;
};
void LayerNormBackward(ConstView dy, ConstView x, ConstView w, ConstView stats, const LayerNormGradients& gradients, Arena& scratch);

}  // namespace fathom

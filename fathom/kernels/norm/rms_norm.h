// Root mean square norm (Zhang and Sennrich, 2019):  y = x * rstd * w,  rstd = 1 / sqrt(mean(x^2) + eps), over the last axis.
#pragma once

#include <cstdint>

#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

// x [T,D] F32|BF16 (rows may be strided), w [D] F32|BF16; overwrites y [T,D] F32|BF16 and, unless empty, rstd [T] F32. y may be x.
void RmsNormForward(ConstView x, ConstView w, float eps, View y, View rstd);

struct RmsNormGradients {
  View dx;              // [T,D] F32|BF16: overwritten, or added to
  bool add_dx = false;  // F32 only
  View dw;              // [D] F32: added to, in an order that does not depend on the number of threads; empty: not wanted
};
// dy [T,D], x [T,D] as in the forward, rstd as it gave it. dx may be dy.
void RmsNormBackward(ConstView dy, ConstView x, ConstView w, ConstView rstd, const RmsNormGradients& gradients, Arena& scratch);

}  // namespace fathom

// y = silu(gate) * up, times a weight per row when given (the router's: applied before the down projection, so that its gradient
// needs no expert output).
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/view.h"

namespace fathom {

// gate, up [T,F] F32|BF16; row_weight [T] F32 or empty; overwrites y [T,F] F32|BF16. y may be gate or up.
void SwigluForward(ConstView gate, ConstView up, std::span<const float> row_weight, View y);

// From dy [T,F]: overwrites dgate, dup [T,F] F32|BF16 (may be gate, up) and, with row weights, d_row_weight [T] F32.
void SwigluBackward(ConstView dy, ConstView gate, ConstView up, std::span<const float> row_weight, View dgate, View dup,
                    std::span<float> d_row_weight);

}  // namespace fathom

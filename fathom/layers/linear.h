// y = x W^T without bias: a weight [N,K] under its Hugging Face name, and the pair of gradients.
#pragma once

#include "fathom/layers/context.h"

namespace fathom {

inline void LinearForward(Ctx& ctx, const Weight& w, ConstView x, View y, Write write = Write::kOverwrite) {
  MatMulNT(x, w, y, write, ctx.scratch);
}

// dw += dy^T x; dx (=|+=) dy W unless dx is empty. dy and x in the compute dtype. A grad without memory is not wanted (frozen).
inline void LinearBackward(Ctx& ctx, const Weight& w, ConstView x, ConstView dy, View dx, Write write, Weight& grad) {
  if (!grad.value.empty()) MatMulTN(dy, x, grad.value.mutable_view(), Write::kAdd, ctx.scratch);
  if (!dx.empty()) MatMulNN(dy, w, dx, write, ctx.scratch);
}

// The view to add a vector's gradient to; empty if it is frozen.
inline View GradView(Weight& grad) { return grad.value.empty() ? View() : grad.value.mutable_view(); }

}  // namespace fathom

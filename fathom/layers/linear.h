// y = x W^T without bias: a weight [N,K] under its Hugging Face name, and the pair of gradients. Under ctx.fp8_block these products are
// those of DeepSeek-V3's FP8 recipe, emulated (docs/numerics.md): operands pass through E4M3, weights in tiles of 128x128, activations and
// gradients in tiles of 128 along the sum, and are multiplied and summed in f32. What the recipe leaves alone (router, head, eh_proj, the
// indexer's weights_proj) calls the Exact functions.
#pragma once

#include "fathom/layers/context.h"

namespace fathom {

void LinearForward(Ctx& ctx, const Weight& w, ConstView x, View y, Write write = Write::kOverwrite);

// dw += dy^T x; dx (=|+=) dy W unless dx is empty. dy and x in the compute dtype. A grad without memory is not wanted (frozen). A weight's
// adapter takes part in both (layers/adapter.h), and is the only thing that learns where grad has no other memory.
void LinearBackward(Ctx& ctx, const Weight& w, ConstView x, ConstView dy, View dx, Write write, Weight& grad);

void ExactLinearForward(Ctx& ctx, const Weight& w, ConstView x, View y, Write write = Write::kOverwrite);
void ExactLinearBackward(Ctx& ctx, const Weight& w, ConstView x, ConstView dy, View dx, Write write, Weight& grad);

// The same for one matrix of every expert; rows begin[e]..begin[e+1] belong to expert e (kernels/gemm/gemm.h).
using Experts = std::span<const Weight* const>;
void ExpertsForward(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, View y);
void ExpertsBackwardInput(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView dy, View dx, Write write);
void ExpertsBackwardWeight(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, ConstView dy, std::span<Weight* const> grads);

// The view to add a vector's gradient to; empty if it is frozen.
inline View GradView(Weight& grad) { return grad.value.empty() ? View() : grad.value.mutable_view(); }

}  // namespace fathom

// Low-rank adapters: what W + f B A adds to a product with W (LoRA, arXiv 2106.09685, section 4.1), A [r,K], B [N,r]. Only layers/linear
// knows that weights may have one. Gradients: with u = f dy B, dA = u^T x, dB = dy^T (f x A^T), dx = u A; the base's own gradient is not
// needed.
#pragma once

#include "fathom/layers/linear.h"

namespace fathom {

// y [M,N] += f x A^T B^T.  x [M,K] compute dtype.
void AdapterForward(Ctx& ctx, const LowRank& adapter, ConstView x, View y);
// dx [M,K] += u A unless dx is empty; grad->a += dA, grad->b += dB unless grad is null.
void AdapterBackward(Ctx& ctx, const LowRank& adapter, ConstView x, ConstView dy, View dx, LowRank* grad);

// The same for one matrix of every expert; those without an adapter add nothing. Rows begin[e]..begin[e+1] belong to expert e.
void AdaptersForward(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, View y);
void AdaptersBackwardInput(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView dy, View dx);
void AdaptersBackwardWeight(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, ConstView dy, std::span<Weight* const> grads);

// W + f B A [N,K] F32 in scratch, FP8 times its scales: for products that cut a weight into heads.
View MergedWeight(Ctx& ctx, const Weight& w);
// What the gradient dw [N,K] F32 of such a weight is to W and to its adapter: grad.value += dw, dA = f B^T dw, dB = f dw A^T.
void AddMergedGradient(Ctx& ctx, const Weight& w, ConstView dw, Weight& grad);

}  // namespace fathom

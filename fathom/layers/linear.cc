#include "fathom/layers/linear.h"

#include <algorithm>
#include <memory>

#include "fathom/kernels/quant/fp8_quantize.h"
#include "fathom/layers/adapter.h"

namespace fathom {
namespace {

// x after E4M3 and back, F32 in scratch: the products of codes and scales that the recipe's hardware sums in f32.
View Rounded(Ctx& ctx, ConstView x, Fp8Tile tile) {
  const View y = ctx.scratch.Alloc(DType::kF32, x.shape());
  RoundToFp8(x, tile, ScaleFormat::kF32, y);
  return y;
}

// A weight that is FP8 already is what the recipe's hardware multiplies.
WeightView RoundedWeight(Ctx& ctx, const Weight& w) {
  if (!w.scale_inv.empty()) return w;
  return {Rounded(ctx, w.value, Fp8Tile::k128x128), {}};
}

std::span<const WeightView> ViewsOf(Ctx& ctx, Experts w) {
  const std::span<WeightView> views = ctx.scratch.AllocSpan<WeightView>(std::ssize(w));
  for (size_t e = 0; e < w.size(); ++e) std::construct_at(&views[e], ctx.fp8_block ? RoundedWeight(ctx, *w[e]) : w[e]->view());
  return views;
}

// Where the gradients of the experts' values go; empty if none is wanted.
std::span<const View> ValuesOf(Ctx& ctx, std::span<Weight* const> grads) {
  if (std::ranges::all_of(grads, [](const Weight* g) { return g->value.empty(); })) return {};
  const std::span<View> views = ctx.scratch.AllocSpan<View>(std::ssize(grads));
  for (size_t e = 0; e < grads.size(); ++e) std::construct_at(&views[e], GradView(*grads[e]));
  return views;
}

// Tiles of 128 rows that begin anew with each expert's rows.
View RoundedDown(Ctx& ctx, ConstView x, std::span<const int64_t> begin) {
  const View y = ctx.scratch.Alloc(DType::kF32, x.shape());
  for (size_t e = 0; e + 1 < begin.size(); ++e) {
    if (begin[e] < begin[e + 1]) {
      RoundToFp8(x.Rows(begin[e], begin[e + 1]), Fp8Tile::k128x1, ScaleFormat::kF32, y.Rows(begin[e], begin[e + 1]));
    }
  }
  return y;
}

}  // namespace

void ExactLinearForward(Ctx& ctx, const Weight& w, ConstView x, View y, Write write) {
  MatMulNT(x, w, y, write, ctx.scratch, ctx.arithmetic);
  if (w.adapter) AdapterForward(ctx, *w.adapter, x, y);
}

void ExactLinearBackward(Ctx& ctx, const Weight& w, ConstView x, ConstView dy, View dx, Write write, Weight& grad) {
  if (!grad.value.empty()) MatMulTN(dy, x, grad.value.mutable_view(), Write::kAdd, ctx.scratch);
  if (!dx.empty()) MatMulNN(dy, w, dx, write, ctx.scratch);
  if (w.adapter) AdapterBackward(ctx, *w.adapter, x, dy, dx, grad.adapter.get());
}

void LinearForward(Ctx& ctx, const Weight& w, ConstView x, View y, Write write) {
  if (!ctx.fp8_block) return ExactLinearForward(ctx, w, x, y, write);
  ArenaScope scope(ctx.scratch);
  MatMulNT(Rounded(ctx, x, Fp8Tile::k1x128), RoundedWeight(ctx, w), y, write, ctx.scratch, ctx.arithmetic);
  if (w.adapter) AdapterForward(ctx, *w.adapter, x, y);
}

void LinearBackward(Ctx& ctx, const Weight& w, ConstView x, ConstView dy, View dx, Write write, Weight& grad) {
  if (!ctx.fp8_block) return ExactLinearBackward(ctx, w, x, dy, dx, write, grad);
  if (!grad.value.empty()) {
    ArenaScope scope(ctx.scratch);
    MatMulTN(Rounded(ctx, dy, Fp8Tile::k128x1), Rounded(ctx, x, Fp8Tile::k128x1), grad.value.mutable_view(), Write::kAdd, ctx.scratch);
  }
  if (!dx.empty()) {
    ArenaScope scope(ctx.scratch);
    MatMulNN(Rounded(ctx, dy, Fp8Tile::k1x128), RoundedWeight(ctx, w), dx, write, ctx.scratch);
  }
  if (w.adapter) AdapterBackward(ctx, *w.adapter, x, dy, dx, grad.adapter.get());
}

void ExpertsForward(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, View y) {
  ArenaScope scope(ctx.scratch);
  const ConstView rows = ctx.fp8_block ? Rounded(ctx, x, Fp8Tile::k1x128) : x;
  GroupedMatMulNT(rows, begin, ViewsOf(ctx, w), y, Write::kOverwrite, ctx.scratch, ctx.arithmetic);
  AdaptersForward(ctx, w, begin, x, y);
}

void ExpertsBackwardInput(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView dy, View dx, Write write) {
  ArenaScope scope(ctx.scratch);
  const ConstView rows = ctx.fp8_block ? Rounded(ctx, dy, Fp8Tile::k1x128) : dy;
  GroupedMatMulNN(rows, begin, ViewsOf(ctx, w), dx, write, ctx.scratch);
  AdaptersBackwardInput(ctx, w, begin, dy, dx);
}

void ExpertsBackwardWeight(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, ConstView dy, std::span<Weight* const> grads) {
  ArenaScope scope(ctx.scratch);
  if (const std::span<const View> dw = ValuesOf(ctx, grads); !dw.empty()) {
    if (!ctx.fp8_block) {
      GroupedMatMulTN(dy, x, begin, dw, Write::kAdd, ctx.scratch);
    } else {
      GroupedMatMulTN(RoundedDown(ctx, dy, begin), RoundedDown(ctx, x, begin), begin, dw, Write::kAdd, ctx.scratch);
    }
  }
  AdaptersBackwardWeight(ctx, w, begin, x, dy, grads);
}

}  // namespace fathom

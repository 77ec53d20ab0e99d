#include "fathom/layers/linear.h"

#include <memory>

#include "fathom/kernels/quant/fp8_quantize.h"

namespace fathom {
namespace {

// x after E4M3 and back, F32 in scratch: the products of codes and scales that the recipe's hardware sums in f32.
View Rounded(Ctx& ctx, ConstView x, Fp8Tile tile) {
  const View y = ctx.scratch.Alloc(DType::kF32, x.shape());
  RoundToFp8(x, tile, ScaleFormat::kF32, y);
  return y;
}

WeightView RoundedWeight(Ctx& ctx, const WeightView& w) { return {Rounded(ctx, w.value, Fp8Tile::k128x128), {}}; }

Experts RoundedExperts(Ctx& ctx, Experts w) {
  auto* rounded = ctx.scratch.AllocArray<WeightView>(std::ssize(w));
  for (size_t e = 0; e < w.size(); ++e) std::construct_at(&rounded[e], RoundedWeight(ctx, w[e]));
  return {rounded, w.size()};
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

void ExactLinearForward(Ctx& ctx, const Weight& w, ConstView x, View y, Write write) { MatMulNT(x, w, y, write, ctx.scratch); }

void ExactLinearBackward(Ctx& ctx, const Weight& w, ConstView x, ConstView dy, View dx, Write write, Weight& grad) {
  if (!grad.value.empty()) MatMulTN(dy, x, grad.value.mutable_view(), Write::kAdd, ctx.scratch);
  if (!dx.empty()) MatMulNN(dy, w, dx, write, ctx.scratch);
}

void LinearForward(Ctx& ctx, const Weight& w, ConstView x, View y, Write write) {
  if (!ctx.fp8_block) return ExactLinearForward(ctx, w, x, y, write);
  ArenaScope scope(ctx.scratch);
  MatMulNT(Rounded(ctx, x, Fp8Tile::k1x128), RoundedWeight(ctx, w), y, write, ctx.scratch);
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
}

void ExpertsForward(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, View y) {
  ArenaScope scope(ctx.scratch);
  if (!ctx.fp8_block) return GroupedMatMulNT(x, begin, w, y, Write::kOverwrite, ctx.scratch);
  GroupedMatMulNT(Rounded(ctx, x, Fp8Tile::k1x128), begin, RoundedExperts(ctx, w), y, Write::kOverwrite, ctx.scratch);
}

void ExpertsBackwardInput(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView dy, View dx, Write write) {
  ArenaScope scope(ctx.scratch);
  if (!ctx.fp8_block) return GroupedMatMulNN(dy, begin, w, dx, write, ctx.scratch);
  GroupedMatMulNN(Rounded(ctx, dy, Fp8Tile::k1x128), begin, RoundedExperts(ctx, w), dx, write, ctx.scratch);
}

void ExpertsBackwardWeight(Ctx& ctx, std::span<const int64_t> begin, ConstView x, ConstView dy, std::span<const View> dw) {
  ArenaScope scope(ctx.scratch);
  if (!ctx.fp8_block) return GroupedMatMulTN(dy, x, begin, dw, Write::kAdd, ctx.scratch);
  GroupedMatMulTN(RoundedDown(ctx, dy, begin), RoundedDown(ctx, x, begin), begin, dw, Write::kAdd, ctx.scratch);
}

}  // namespace fathom

#include "fathom/model/remat.h"

namespace fathom {

Block::Saved AllocateKept(Arena& arena, const Block& block, DType compute, int64_t tokens, Remat remat, const LayerGroups& groups) {
  if (remat != Remat::kFull) return block.Allocate(arena, compute, tokens, remat == Remat::kNone, groups);
  Block::Saved kept;
  kept.h_in = arena.Alloc(DType::kF32, {tokens, block.hidden()});
  return kept;
}

void ForwardKeeping(Ctx& ctx, const LayerPass& pass, View h, Block::Saved& kept) {
  const auto& [block, p, inputs, remat] = pass;
  if (remat != Remat::kFull) return block.Forward(ctx, p, inputs, h, kept);
  ArenaScope scope(ctx.scratch);
  Cast(h, kept.h_in);
  Block::Saved passing = block.Allocate(ctx.scratch, ctx.compute, h.dim(0), false, ctx.groups);
  block.Forward(ctx, p, inputs, h, passing);
}

Block::Saved Restored(Ctx& ctx, const LayerPass& pass, Block::Saved& kept) {
  const auto& [block, p, inputs, remat] = pass;
  if (remat != Remat::kFull) return kept;
  Block::Saved saved = block.Allocate(ctx.scratch, ctx.compute, kept.h_in.dim(0), false, ctx.groups);
  const View h = ctx.scratch.Alloc(DType::kF32, kept.h_in.shape());
  Cast(kept.h_in, h);
  block.Forward(ctx, p, inputs, h, saved);
  return saved;
}

void BackwardKept(Ctx& ctx, const LayerPass& pass, Block::Saved& kept, const LayerTerms& terms, int64_t layer, View dh, BlockParams& grad) {
  ArenaScope scope(ctx.scratch);
  Block::Saved saved = Restored(ctx, pass, kept);
  const ConstView d_scores = terms.Apply(ctx, pass.block, pass.p, layer, saved, grad);
  pass.block.Backward(ctx, pass.p, pass.inputs, saved, d_scores, dh, grad);
}

}  // namespace fathom

#include "fathom/model/mtp.h"

#include "fathom/kernels/elementwise/embedding.h"
#include "fathom/kernels/norm/rms_norm.h"
#include "fathom/layers/linear.h"

namespace fathom {

Mtp::Mtp(const ModelConfig& c, int64_t layer, const LayerOptions& options)
    : layer_(layer), hidden_(c.hidden_size), eps_(static_cast<float>(c.rms_norm_eps)), block_(c, c.is_moe_layer(layer), options) {}

Mtp::Saved Mtp::Allocate(Arena& arena, DType compute, int64_t tokens, Remat remat, const LayerGroups& groups) const {
  Saved s;
  s.rstd_embedding = arena.Alloc(DType::kF32, {tokens});
  s.rstd_state = arena.Alloc(DType::kF32, {tokens});
  s.block = AllocateKept(arena, block_, compute, tokens, remat, groups);
  s.h = arena.Alloc(DType::kF32, {tokens, hidden_});
  return s;
}

// [T,2D]: the normed embedding, then the normed state, as the hub's eh_proj has its columns. In scratch; the backward makes it again.
View Mtp::Join(Ctx& ctx, const MtpParams& p, std::span<const int32_t> ids, ConstView state, View rstd_embedding, View rstd_state) const {
  const View joined = ctx.scratch.Alloc(ctx.compute, {state.dim(0), 2 * hidden_});
  ArenaScope scope(ctx.scratch);
  const View embedding = ctx.scratch.Alloc(DType::kF32, state.shape());
  EmbeddingForward(p.embed_tokens.value, ids, embedding);
  RmsNormForward(embedding, p.enorm.value, eps_, joined.Cols(0, hidden_), rstd_embedding);
  RmsNormForward(state, p.hnorm.value, eps_, joined.Cols(hidden_, 2 * hidden_), rstd_state);
  return joined;
}

void Mtp::Forward(Ctx& ctx, const MtpParams& p, const Inputs& in, Saved& s) const {
  {
    ArenaScope scope(ctx.scratch);
    ExactLinearForward(ctx, p.eh_proj, Join(ctx, p, in.ids, in.state, s.rstd_embedding, s.rstd_state), s.h);
  }
  ForwardKeeping(ctx, {block_, p.block, in.block, in.remat}, s.h, s.block);
}

void Mtp::Backward(Ctx& ctx, const MtpParams& p, const Inputs& in, const LayerTerms& terms, Saved& s, const Gradients& d,
                   MtpParams& grad) const {
  BackwardKept(ctx, {block_, p.block, in.block, in.remat}, s.block, terms, layer_, d.dh, grad.block);
  ArenaScope scope(ctx.scratch);
  const View d_joined = ctx.scratch.Alloc(DType::kF32, {d.dh.dim(0), 2 * hidden_});
  {
    ArenaScope inner(ctx.scratch);
    const View joined = Join(ctx, p, in.ids, in.state, {}, {});
    ExactLinearBackward(ctx, p.eh_proj, joined, AsCompute(ctx, d.dh), d_joined, Write::kOverwrite, grad.eh_proj);
  }
  RmsNormBackward(d_joined.Cols(hidden_, 2 * hidden_), in.state, p.hnorm.value, s.rstd_state, {.dx = d.d_state, .dw = GradView(grad.hnorm)},
                  ctx.scratch);
  const View embedding = ctx.scratch.Alloc(DType::kF32, d.dh.shape());
  EmbeddingForward(p.embed_tokens.value, in.ids, embedding);
  RmsNormBackward(d_joined.Cols(0, hidden_), embedding, p.enorm.value, s.rstd_embedding, {.dx = d.dh, .dw = GradView(grad.enorm)},
                  ctx.scratch);
  if (!grad.embed_tokens.value.empty()) EmbeddingBackward(d.dh, in.ids, grad.embed_tokens.value.mutable_view());
}

void Mtp::ForwardCached(Ctx& ctx, const MtpParams& p, std::span<const int32_t> ids, const CachedInputs& in, ConstView state, View h) const {
  ArenaScope scope(ctx.scratch);
  ExactLinearForward(ctx, p.eh_proj, Join(ctx, p, ids, state, {}, {}), h);
  block_.ForwardCached(ctx, p.block, in, h);
}

}  // namespace fathom

#include "fathom/layers/block.h"

#include "fathom/base/trace.h"
#include "fathom/kernels/norm/rms_norm.h"
#include "fathom/layers/linear.h"

namespace fathom {

Block::Block(const ModelConfig& c, bool moe, const LayerOptions& options)
    : hidden_(c.hidden_size), eps_(static_cast<float>(c.rms_norm_eps)), attention_(c, options) {
  if (moe) {
    moe_.emplace(c, options);
  } else {
    dense_.emplace(c.intermediate_size);
  }
}

Block::Saved Block::Allocate(Arena& arena, DType compute, int64_t tokens, bool keep_normed, const LayerGroups& groups) const {
  Saved s;
  s.h_in = arena.Alloc(DType::kF32, {tokens, hidden_});
  s.h_mid = arena.Alloc(DType::kF32, {tokens, hidden_});
  if (keep_normed) {
    s.x_attention = arena.Alloc(compute, {tokens, hidden_});
    s.x_ffn = arena.Alloc(compute, {tokens, hidden_});
  }
  s.rstd_attention = arena.Alloc(DType::kF32, {tokens});
  s.rstd_ffn = arena.Alloc(DType::kF32, {tokens});
  s.attention = attention_.Allocate(arena, compute, tokens, groups);
  if (dense_) s.dense = dense_->Allocate(arena, compute, tokens);
  if (moe_) s.moe = moe_->Allocate(arena, compute, tokens, groups);
  return s;
}

ConstView Block::Normed(Ctx& ctx, ConstView h, const Weight& w, View kept, View rstd) const {
  const View x = kept.empty() ? ctx.scratch.Alloc(ctx.compute, h.shape()) : kept;
  RmsNormForward(h, w.value, eps_, x, rstd);
  return x;
}

ConstView Block::AttentionInput(Ctx& ctx, const BlockParams& p, const Saved& s) const {
  return s.x_attention.empty() ? Normed(ctx, s.h_in, p.input_layernorm, {}, {}) : ConstView(s.x_attention);
}

void Block::FeedForward(Ctx& ctx, const BlockParams& p, int64_t sequence, ConstView x, View h, Mlp::Saved* dense, Moe::Saved& moe) const {
  const TraceSlice slice(moe_ ? "experts" : "mlp");
  const Comm& tensor = ctx.groups.tensor;
  if (!moe_) return AddOverRanks(tensor, ctx.scratch, h, [&](View y) { dense_->Forward(ctx, p.dense, x, y, dense); });
  const auto add = [&](View y) {
    AddOverRanks(tensor, ctx.scratch, y, [&](View part) { moe_->Forward(ctx, p.moe, sequence, x, part, moe); });
  };
  if (!ctx.groups.same_tokens) return add(h);
  AddOverRanks(ctx.groups.expert, ctx.scratch, h, add);
}

void Block::Forward(Ctx& ctx, const BlockParams& p, const BlockInputs& inputs, View h, Saved& s) const {
  ArenaScope scope(ctx.scratch);
  Cast(h, s.h_in);
  const ConstView x = Normed(ctx, h, p.input_layernorm, s.x_attention, s.rstd_attention);
  {
    const TraceSlice slice("attention");
    AddOverRanks(ctx.groups.tensor, ctx.scratch, h, [&](View y) { attention_.Forward(ctx, p.self_attn, {inputs, x}, y, s.attention); });
  }
  Cast(h, s.h_mid);
  FeedForward(ctx, p, inputs.layout.sequence, Normed(ctx, h, p.post_attention_layernorm, s.x_ffn, s.rstd_ffn), h, &s.dense, s.moe);
}

void Block::Backward(Ctx& ctx, const BlockParams& p, const BlockInputs& inputs, Saved& s, ConstView d_scores, View dh,
                     BlockParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const View dx = ctx.scratch.Alloc(DType::kF32, dh.shape());
  {
    const TraceSlice slice(moe_ ? "experts" : "mlp");
    ArenaScope inner(ctx.scratch);
    const ConstView x = s.x_ffn.empty() ? Normed(ctx, s.h_mid, p.post_attention_layernorm, {}, {}) : s.x_ffn;
    Fill(0, dx);
    if (moe_) {
      moe_->Backward(ctx, p.moe, s.moe, x, {AsCompute(ctx, dh), d_scores}, dx, grad.moe);
    } else {
      const ConstView dy = AsCompute(ctx, dh);
      AddOverRanks(ctx.groups.tensor, ctx.scratch, dx,
                   [&](View part) { dense_->Backward(ctx, p.dense, s.dense, x, dy, part, grad.dense); });
    }
  }
  RmsNormBackward(dx, s.h_mid, p.post_attention_layernorm.value, s.rstd_ffn, {dh, true, GradView(grad.post_attention_layernorm)},
                  ctx.scratch);
  const TraceSlice slice("attention");
  Fill(0, dx);
  attention_.Backward(ctx, p.self_attn, {inputs, AttentionInput(ctx, p, s)}, s.attention, AsCompute(ctx, dh), dx, grad.self_attn);
  RmsNormBackward(dx, s.h_in, p.input_layernorm.value, s.rstd_attention, {dh, true, GradView(grad.input_layernorm)}, ctx.scratch);
}

double Block::LearnIndexer(Ctx& ctx, const BlockParams& p, const BlockInputs& inputs, const Saved& s, bool sparse, float factor,
                           BlockParams& grad) const {
  ArenaScope scope(ctx.scratch);
  return attention_.LearnIndexer(ctx, p.self_attn, {inputs, AttentionInput(ctx, p, s)}, s.attention, sparse, factor, grad.self_attn);
}

void Block::IndexerScores(Ctx& ctx, const BlockParams& p, const BlockInputs& inputs, const Saved& s, int64_t query,
                          std::span<float> scores) const {
  ArenaScope scope(ctx.scratch);
  attention_.IndexerScores(ctx, p.self_attn, {inputs, AttentionInput(ctx, p, s)}, s.attention, query, scores);
}

void Block::ForwardCached(Ctx& ctx, const BlockParams& p, const CachedInputs& in, View h) const {
  ArenaScope scope(ctx.scratch);
  const ConstView x = Normed(ctx, h, p.input_layernorm, {}, {});
  {
    const TraceSlice slice("attention");
    AddOverRanks(ctx.groups.tensor, ctx.scratch, h, [&](View y) { attention_.ForwardCached(ctx, p.self_attn, in, x, y); });
  }
  Moe::Saved routing;
  if (moe_) routing = moe_->Allocate(ctx.scratch, ctx.compute, h.dim(0), ctx.groups);
  FeedForward(ctx, p, 0, Normed(ctx, h, p.post_attention_layernorm, {}, {}), h, nullptr, routing);
}

}  // namespace fathom

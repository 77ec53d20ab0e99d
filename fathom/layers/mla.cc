#include "fathom/layers/mla.h"

#include "fathom/kernels/mla_decode.h"
#include "fathom/kernels/rms_norm.h"
#include "fathom/kernels/rope.h"
#include "fathom/layers/linear.h"

namespace fathom {
namespace {

// Up to this many new tokens the absorbed form is cheaper than expanding the whole cache.
constexpr int64_t kAbsorbedTokens = 8;

int64_t CoveredTokens(const TokenLayout& layout) {
  int64_t tokens = 0;
  for (const Segment& s : layout.segments) tokens += s.q_end - s.q_begin;
  return tokens;
}

// [T,H*width] as [T*H, width], columns begin..end, packed and in F32.
View HeadColumns(Ctx& ctx, ConstView x, int64_t heads, int64_t begin, int64_t end) {
  const View y = ctx.scratch.Alloc(DType::kF32, {x.dim(0), heads * (end - begin)});
  const int64_t rows = x.dim(0) * heads;
  Cast(x.Reshape({rows, x.dim(1) / heads}).Cols(begin, end), y.Reshape({rows, end - begin}));
  return y;
}

}  // namespace

Mla::Mla(const ModelConfig& c)
    : shape_{c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim, static_cast<float>(SoftmaxScale(c))},
      q_rank_(c.q_lora_rank),
      kv_rank_(c.kv_lora_rank) {}

Mla::Saved Mla::Allocate(Arena& arena, DType compute, int64_t t) const {
  const auto& [heads, nope, rope, v, scale] = shape_;
  Saved s;
  if (q_rank_ > 0) {
    s.q_low = arena.Alloc(compute, {t, q_rank_});
    s.q_low_rstd = arena.Alloc(DType::kF32, {t});
  }
  s.q = arena.Alloc(compute, {t, heads * (nope + rope)});
  s.kv_low = arena.Alloc(compute, {t, kv_rank_ + rope});
  s.latent_rstd = arena.Alloc(DType::kF32, {t});
  s.kv = arena.Alloc(compute, {t, heads * (nope + v)});
  s.o = arena.Alloc(compute, {t, heads * v});
  s.lse = arena.Alloc(DType::kF32, {t, heads});
  return s;
}

void Mla::Queries(Ctx& ctx, const MlaParams& p, ConstView x, View q_low, View q_low_rstd, View q) const {
  if (q_rank_ == 0) return LinearForward(ctx, p.q_proj, x, q);
  ArenaScope scope(ctx.scratch);
  LinearForward(ctx, p.q_a_proj, x, q_low);
  const View normed = ctx.scratch.Alloc(ctx.compute, q_low.shape());
  RmsNormForward(q_low, p.q_a_layernorm.value, eps_, normed, q_low_rstd);
  LinearForward(ctx, p.q_b_proj, normed, q);
}

void Mla::Rotate(View q, View kv_low, std::span<const int32_t> positions, const RopeTable& rope, bool inverse) const {
  const auto direction = inverse ? RopeDirection::kInverse : RopeDirection::kForward;
  const int64_t width = shape_.nope_dim + shape_.rope_dim;
  RopeRotate(q, shape_.heads, width, shape_.nope_dim, rope.cos, rope.sin, positions, RopePairs::kInterleaved, direction);
  RopeRotate(kv_low, 1, shape_.rope_dim, kv_rank_, rope.cos, rope.sin, positions, RopePairs::kInterleaved, direction);
}

void Mla::Forward(Ctx& ctx, const MlaParams& p, const TokenLayout& layout, const RopeTable& rope, ConstView x, View y, Saved& s) const {
  ArenaScope scope(ctx.scratch);
  Queries(ctx, p, x, s.q_low, s.q_low_rstd, s.q);
  LinearForward(ctx, p.kv_a_proj_with_mqa, x, s.kv_low);
  const View latent = ctx.scratch.Alloc(ctx.compute, {x.dim(0), kv_rank_});
  RmsNormForward(s.kv_low.Cols(0, kv_rank_), p.kv_a_layernorm.value, eps_, latent, s.latent_rstd);
  LinearForward(ctx, p.kv_b_proj, latent, s.kv);
  Rotate(s.q, s.kv_low, layout.positions, rope, false);
  const View k_rope = s.kv_low.Cols(kv_rank_, kv_rank_ + shape_.rope_dim);
  if (CoveredTokens(layout) < x.dim(0)) Fill(0, s.o);  // attention writes no row of padding
  MlaAttentionForward(shape_, layout.segments, s.q, s.kv, k_rope, s.o, s.lse, ctx.scratch);
  LinearForward(ctx, p.o_proj, s.o, y, Write::kAdd);
}

void Mla::Backward(Ctx& ctx, const MlaParams& p, const TokenLayout& layout, const RopeTable& rope, const Saved& s, ConstView x, ConstView dy, View dx,
                   MlaParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const View d_o = ctx.scratch.Alloc(ctx.compute, s.o.shape());
  LinearBackward(ctx, p.o_proj, s.o, dy, d_o, Write::kOverwrite, grad.o_proj);
  const View dq = ctx.scratch.Alloc(ctx.compute, s.q.shape());
  const View dkv = ctx.scratch.Alloc(ctx.compute, s.kv.shape());
  const View dkv_low = ctx.scratch.Alloc(ctx.compute, s.kv_low.shape());
  const int64_t r = kv_rank_, end = kv_rank_ + shape_.rope_dim;
  MlaAttentionBackward(shape_, layout.segments, s.q, s.kv, s.kv_low.Cols(r, end), s.o, s.lse, d_o, dq, dkv, dkv_low.Cols(r, end), ctx.scratch);
  Rotate(dq, dkv_low, layout.positions, rope, true);
  BackwardQueries(ctx, p, s, x, dq, dx, grad);
  BackwardLatent(ctx, p, s, x, dkv, dkv_low, dx, grad);
}

void Mla::BackwardQueries(Ctx& ctx, const MlaParams& p, const Saved& s, ConstView x, ConstView dq, View dx, MlaParams& grad) const {
  if (q_rank_ == 0) return LinearBackward(ctx, p.q_proj, x, dq, dx, Write::kAdd, grad.q_proj);
  ArenaScope scope(ctx.scratch);
  const View normed = ctx.scratch.Alloc(ctx.compute, s.q_low.shape());
  RmsNormForward(s.q_low, p.q_a_layernorm.value, eps_, normed, {});
  const View d_low = ctx.scratch.Alloc(ctx.compute, s.q_low.shape());
  LinearBackward(ctx, p.q_b_proj, normed, dq, d_low, Write::kOverwrite, grad.q_b_proj);
  RmsNormBackward(d_low, s.q_low, p.q_a_layernorm.value, s.q_low_rstd, d_low, false, GradView(grad.q_a_layernorm), ctx.scratch);
  LinearBackward(ctx, p.q_a_proj, x, d_low, dx, Write::kAdd, grad.q_a_proj);
}

void Mla::BackwardLatent(Ctx& ctx, const MlaParams& p, const Saved& s, ConstView x, ConstView dkv, View dkv_low, View dx, MlaParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const View low = s.kv_low.Cols(0, kv_rank_);
  const View latent = ctx.scratch.Alloc(ctx.compute, low.shape());
  RmsNormForward(low, p.kv_a_layernorm.value, eps_, latent, {});
  const View d_latent = ctx.scratch.Alloc(ctx.compute, low.shape());
  LinearBackward(ctx, p.kv_b_proj, latent, dkv, d_latent, Write::kOverwrite, grad.kv_b_proj);
  RmsNormBackward(d_latent, low, p.kv_a_layernorm.value, s.latent_rstd, dkv_low.Cols(0, kv_rank_), false, GradView(grad.kv_a_layernorm), ctx.scratch);
  LinearBackward(ctx, p.kv_a_proj_with_mqa, x, dkv_low, dx, Write::kAdd, grad.kv_a_proj_with_mqa);
}

void Mla::Absorbed(Ctx& ctx, const MlaParams& p, ConstView q, ConstView rows, int64_t past, View o) const {
  const auto& [heads, nope, rope, v, scale] = shape_;
  const int64_t m = q.dim(0);
  const View q_nope = HeadColumns(ctx, q, heads, 0, nope), q_rope = HeadColumns(ctx, q, heads, nope, nope + rope);
  const View q_latent = ctx.scratch.Alloc(DType::kF32, {m, heads * kv_rank_});
  PerHeadMatMul(HeadProduct::kToLatent, heads, p.kv_b_proj, 0, nope, q_nope, q_latent, ctx.scratch);
  int64_t visible[kAbsorbedTokens];
  for (int64_t i = 0; i < m; ++i) visible[i] = past + i + 1;
  const View o_latent = ctx.scratch.Alloc(DType::kF32, q_latent.shape());
  MlaDecode({heads, kv_rank_, rope, scale}, q_latent, q_rope, rows, {visible, static_cast<size_t>(m)}, {}, 0, o_latent, ctx.scratch);
  const View o_f32 = ctx.scratch.Alloc(DType::kF32, o.shape());
  PerHeadMatMul(HeadProduct::kFromLatent, heads, p.kv_b_proj, nope, v, o_latent, o_f32, ctx.scratch);
  Cast(o_f32, o);
}

void Mla::Expanded(Ctx& ctx, const MlaParams& p, ConstView q, ConstView rows, int64_t past, View o) const {
  const auto& [heads, nope, rope, v, scale] = shape_;
  const int64_t m = q.dim(0);
  const View kv = ctx.scratch.Alloc(ctx.compute, {rows.dim(0), heads * (nope + v)});
  LinearForward(ctx, p.kv_b_proj, rows.Cols(0, kv_rank_), kv);
  const Segment segment{0, m, 0, past + m};
  MlaAttentionForward(shape_, {&segment, 1}, q, kv, rows.Cols(kv_rank_, kv_rank_ + rope), o, {}, ctx.scratch);
}

void Mla::ForwardCached(Ctx& ctx, const MlaParams& p, std::span<const int32_t> positions, const RopeTable& rope, int64_t past, ConstView x, View y,
                        LayerCache& cache) const {
  ArenaScope scope(ctx.scratch);
  const int64_t m = x.dim(0);
  const View q = ctx.scratch.Alloc(ctx.compute, {m, shape_.heads * (shape_.nope_dim + shape_.rope_dim)});
  const View q_low = q_rank_ > 0 ? ctx.scratch.Alloc(ctx.compute, {m, q_rank_}) : View();
  Queries(ctx, p, x, q_low, {}, q);
  const View kv_low = cache.latent_rope.mutable_view().Rows(past, past + m);
  LinearForward(ctx, p.kv_a_proj_with_mqa, x, kv_low);
  RmsNormForward(kv_low.Cols(0, kv_rank_), p.kv_a_layernorm.value, eps_, kv_low.Cols(0, kv_rank_), {});
  Rotate(q, kv_low, positions, rope, false);
  const ConstView rows = cache.latent_rope.view().Rows(0, past + m);
  const View o = ctx.scratch.Alloc(ctx.compute, {m, shape_.heads * shape_.v_dim});
  if (m <= kAbsorbedTokens) {
    Absorbed(ctx, p, q, rows, past, o);
  } else {
    Expanded(ctx, p, q, rows, past, o);
  }
  LinearForward(ctx, p.o_proj, o, y, Write::kAdd);
}

}  // namespace fathom

#include "fathom/layers/latent_attention.h"

#include <algorithm>

#include "fathom/kernels/attention/head_product.h"
#include "fathom/kernels/attention/mla_decode.h"
#include "fathom/layers/adapter.h"

namespace fathom {
namespace {

// Queries at a time: enough rows for the products of each head, few enough for their latents.
constexpr int64_t kQueries = 64;
constexpr int64_t kFewQueries = 8;

// Sizes by name, and the parts of a head's weight: W_uk [Dn,R], then W_uv [Dv,R].
struct Heads {
  explicit Heads(const LatentAttention& a) : shape(a.shape), rank(a.kv_b_proj.value.dim(1)), weight(a.kv_b_proj.view()) {}
  WeightView Key(int64_t h) const { return {weight.value.Rows(h * Each(), h * Each() + shape.nope_dim), {}}; }
  WeightView Value(int64_t h) const { return {weight.value.Rows(h * Each() + shape.nope_dim, (h + 1) * Each()), {}}; }
  View Key(View grad, int64_t h) const { return grad.Rows(h * Each(), h * Each() + shape.nope_dim); }
  View Value(View grad, int64_t h) const { return grad.Rows(h * Each() + shape.nope_dim, (h + 1) * Each()); }
  int64_t Each() const { return shape.nope_dim + shape.v_dim; }
  MlaDecodeShape Decode() const { return {shape.heads, rank, shape.rope_dim, shape.scale}; }

  const MlaShape& shape;
  int64_t rank;
  WeightView weight;
};

// Columns of head h where each has `width`.
template <class V>
V Head(const V& x, int64_t h, int64_t width) {
  return x.Cols(h * width, (h + 1) * width);
}

// The nope part of head h of queries.
template <class V>
V Nope(const V& q, const MlaShape& s, int64_t h) {
  const int64_t width = s.nope_dim + s.rope_dim;
  return q.Cols(h * width, h * width + s.nope_dim);
}

// The rope parts [T*H,Dr] of queries [T,H*(Dn+Dr)].
template <class V>
V Ropes(const V& q, const MlaShape& s) {
  const int64_t width = s.nope_dim + s.rope_dim;
  return q.Reshape({q.dim(0) * s.heads, width}).Cols(s.nope_dim, width);
}

// y_h = x_h W_uk for every head: [M,H*R] F32.
View ToLatent(Ctx& ctx, const Heads& heads, ConstView q) {
  const View y = ctx.scratch.Alloc(DType::kF32, {q.dim(0), heads.shape.heads * heads.rank});
  for (int64_t h = 0; h < heads.shape.heads; ++h) {
    MatMulNN(Nope(q, heads.shape, h), heads.Key(h), Head(y, h, heads.rank), Write::kOverwrite, ctx.scratch);
  }
  return y;
}

View RopeOf(Ctx& ctx, const MlaShape& s, ConstView q) {
  const View rope = ctx.scratch.Alloc(DType::kF32, {q.dim(0), s.heads * s.rope_dim});
  Cast(Ropes(q, s), rope.Reshape({q.dim(0) * s.heads, s.rope_dim}));
  return rope;
}

std::span<const int32_t> ChosenOf(const LatentAttention& a, int64_t begin, int64_t end) {
  if (a.chosen.empty()) return {};
  return a.chosen.subspan(static_cast<size_t>(begin * a.k), static_cast<size_t>((end - begin) * a.k));
}

std::span<const BlockTable> TablesOf(const LatentAttention& a, int64_t begin, int64_t end) {
  if (a.tables.empty()) return {};
  return a.tables.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
}

// f(begin, end, segment) for the queries of every segment, some at a time. Where memory is counted, the last of a segment, which see the
// most keys, stand for all of its whole blocks.
template <class F>
void ForQueries(Ctx& ctx, const LatentAttention& a, const F& f) {
  for (const Segment& s : a.segments) {
    const int64_t first = ctx.scratch.counting() ? std::max(s.q_begin, s.q_end - kQueries) : s.q_begin;
    for (int64_t t = first; t < s.q_end; t += kQueries) f(t, std::min(s.q_end, t + kQueries), s);
  }
}

// How many rows, from the first on, each query sees.
std::span<const int64_t> VisibleRows(Ctx& ctx, const LatentAttention& a, const Segment& s, int64_t begin, int64_t end) {
  if (!a.chosen.empty()) return {};
  if (!a.visible.empty()) return a.visible.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  FATHOM_CHECK(s.k_begin == 0, "keys from {}", s.k_begin);
  const std::span<int64_t> visible = ctx.scratch.AllocSpan<int64_t>(end - begin);
  for (int64_t t = begin; t < end; ++t) visible[static_cast<size_t>(t - begin)] = s.k_end - (s.q_end - 1 - t);
  return visible;
}

// o_h = o_latent_h W_uv^T for every head.
void FromLatent(Ctx& ctx, const Heads& heads, ConstView o_latent, View o) {
  const ConstView latents = AsCompute(ctx, o_latent);
  for (int64_t h = 0; h < heads.shape.heads; ++h) {
    MatMulNT(Head(latents, h, heads.rank), heads.Value(h), Head(o, h, heads.shape.v_dim), Write::kOverwrite, ctx.scratch);
  }
}

// The same products where the weight's rows are better read once for all queries: few of them, or FP8, whose blocks of scales may straddle
// heads.
View ToLatentByRow(Ctx& ctx, const Heads& heads, ConstView q) {
  const MlaShape& s = heads.shape;
  const View y = ctx.scratch.Alloc(DType::kF32, {q.dim(0), s.heads * heads.rank}),
             x = ctx.scratch.Alloc(DType::kF32, {q.dim(0), s.heads * s.nope_dim});
  const int64_t rows = q.dim(0) * s.heads;
  Cast(q.Reshape({rows, s.nope_dim + s.rope_dim}).Cols(0, s.nope_dim), x.Reshape({rows, s.nope_dim}));
  PerHeadMatMul(HeadProduct::kToLatent, {s.heads, heads.weight, 0, s.nope_dim}, x, y, ctx.scratch);
  return y;
}

void FromLatentByRow(Ctx& ctx, const Heads& heads, ConstView o_latent, View o) {
  const View y = ctx.scratch.Alloc(DType::kF32, o.shape());
  const HeadWeights values{heads.shape.heads, heads.weight, heads.shape.nope_dim, heads.shape.v_dim};
  PerHeadMatMul(HeadProduct::kFromLatent, values, o_latent, y, ctx.scratch);
  Cast(y, o);
}

void ForwardQueries(Ctx& ctx, const LatentAttention& a, int64_t begin, ConstView q, std::span<const int64_t> visible, View o, View lse,
                    View top) {
  const Heads heads(a);
  const int64_t end = begin + q.dim(0);
  const bool few = ctx.arithmetic == Arithmetic::kByRow || q.dim(0) <= kFewQueries, by_row = few || !heads.weight.scale.empty();
  const View q_latent = by_row ? ToLatentByRow(ctx, heads, q) : ToLatent(ctx, heads, q);
  const View o_latent = ctx.scratch.Alloc(DType::kF32, q_latent.shape());
  const MlaDecodeInputs in{q_latent, RopeOf(ctx, a.shape, q), a.rows, visible, ChosenOf(a, begin, end), a.k, TablesOf(a, begin, end), !few};
  MlaDecode(heads.Decode(), in, o_latent, lse, ctx.scratch, top);
  if (by_row) {
    FromLatentByRow(ctx, heads, o_latent, o);
  } else {
    FromLatent(ctx, heads, o_latent, o);
  }
}

void BackwardQueries(Ctx& ctx, const LatentAttention& a, const LatentAttentionQueries& r, std::span<const int32_t> chosen, View d_rows,
                     View grad) {
  ArenaScope scope(ctx.scratch);
  const Heads heads(a);
  const int64_t m = r.q.dim(0), h_all = a.shape.heads, v = a.shape.v_dim;
  const View q_latent = ToLatent(ctx, heads, r.q), q_rope = RopeOf(ctx, a.shape, r.q);
  const auto latents = [&] { return ctx.scratch.Alloc(DType::kF32, q_latent.shape()); };
  const View d_o_latent = latents(), o_latent = latents(), dq_latent = latents(), dq_rope = ctx.scratch.Alloc(DType::kF32, q_rope.shape());
  for (int64_t h = 0; h < h_all; ++h) {
    MatMulNN(Head(r.d_o, h, v), heads.Value(h), Head(d_o_latent, h, heads.rank), Write::kOverwrite, ctx.scratch);
  }
  const View dot = ctx.scratch.Alloc(DType::kF32, {m, h_all});
  RowDots(r.o.Reshape({m * h_all, v}), r.d_o.Reshape({m * h_all, v}), dot.Reshape({m * h_all}));
  const MlaDecodeInputs in{.q_latent = q_latent, .q_rope = q_rope, .cache = a.rows, .visible = {}, .chosen = chosen, .k = a.k};
  MlaDecodeBackward(heads.Decode(), in, {r.lse, dot, d_o_latent}, {o_latent, dq_latent, dq_rope, d_rows}, ctx.scratch);
  Cast(dq_rope.Reshape({m * h_all, a.shape.rope_dim}), Ropes(r.dq, a.shape));
  const ConstView dq_low = AsCompute(ctx, dq_latent), o_low = AsCompute(ctx, o_latent);
  for (int64_t h = 0; h < h_all; ++h) {
    MatMulNT(Head(dq_low, h, heads.rank), heads.Key(h), Nope(r.dq, a.shape, h), Write::kOverwrite, ctx.scratch);
    if (grad.empty()) continue;
    MatMulTN(Nope(r.q, a.shape, h), Head(dq_low, h, heads.rank), heads.Key(grad, h), Write::kAdd, ctx.scratch);
    MatMulTN(Head(r.d_o, h, v), Head(o_low, h, heads.rank), heads.Value(grad, h), Write::kAdd, ctx.scratch);
  }
}

// The weight as heads can be cut out of it.
Weight Merged(Ctx& ctx, const Weight& w) { return {.value = Tensor(nullptr, MergedWeight(ctx, w))}; }

void BackwardAll(Ctx& ctx, const LatentAttention& a, const LatentAttentionQueries& all, View d_rows, View grad) {
  ForQueries(ctx, a, [&](int64_t begin, int64_t end, const Segment&) {
    const auto rows = [&](const auto& x) { return x.Rows(begin, end); };
    BackwardQueries(ctx, a, {rows(all.q), rows(all.o), rows(all.lse), rows(all.d_o), rows(all.dq)}, ChosenOf(a, begin, end), d_rows, grad);
  });
}

}  // namespace

void LatentAttentionForward(Ctx& ctx, const LatentAttention& a, ConstView q, View o, View lse, View top) {
  if (a.kv_b_proj.adapter) {
    ArenaScope scope(ctx.scratch);
    const Weight merged = Merged(ctx, a.kv_b_proj);
    return LatentAttentionForward(ctx, {a.shape, merged, a.segments, a.chosen, a.k, a.rows, a.visible, a.tables}, q, o, lse, top);
  }
  const auto rows = [](const View& x, int64_t begin, int64_t end) { return x.empty() ? View() : x.Rows(begin, end); };
  ForQueries(ctx, a, [&](int64_t begin, int64_t end, const Segment& s) {
    ArenaScope scope(ctx.scratch);
    ForwardQueries(ctx, a, begin, q.Rows(begin, end), VisibleRows(ctx, a, s, begin, end), o.Rows(begin, end), rows(lse, begin, end),
                   rows(top, begin, end));
  });
}

// An FP8 weight's scales may straddle heads, and an adapter has none: both are merged into one matrix first.
void LatentAttentionBackward(Ctx& ctx, const LatentAttention& a, const LatentAttentionQueries& queries, View d_rows, Weight& grad) {
  const Weight& w = a.kv_b_proj;
  if (w.scale_inv.empty() && !w.adapter) return BackwardAll(ctx, a, queries, d_rows, GradView(grad));
  ArenaScope scope(ctx.scratch);
  const bool learns = !grad.value.empty() || grad.adapter;
  const View dw = learns ? ctx.scratch.Alloc(DType::kF32, w.value.shape()) : View();
  if (learns) Fill(0, dw);
  BackwardAll(ctx, {a.shape, Merged(ctx, w), a.segments, a.chosen, a.k, a.rows}, queries, d_rows, dw);
  if (learns) AddMergedGradient(ctx, w, dw, grad);
}

}  // namespace fathom

#include "fathom/layers/mla.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "fathom/base/trace.h"
#include "fathom/kernels/attention/rope.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/norm/rms_norm.h"
#include "fathom/layers/chosen_attention.h"
#include "fathom/layers/linear.h"
#include "fathom/tensor/traced_bytes.h"

namespace fathom {
namespace {

// Queries after a choice that is none: comparisons hide a NaN, attention shows it.
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// 2 * (Dn + Dr + Dv) for each pair of a query and a key that it sees, of all heads; the backward as twice that.
double AttentionFlops(const MlaShape& s, std::span<const Segment> segments) {
  double pairs = 0;
  for (const Segment& g : segments) {
    const auto queries = static_cast<double>(g.q_end - g.q_begin), keys = static_cast<double>(g.k_end - g.k_begin);
    pairs += queries * (keys - (queries - 1) / 2);
  }
  return 2 * pairs * static_cast<double>(s.heads * (s.nope_dim + s.rope_dim + s.v_dim));
}

void TracedForward(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in, View o, View lse, Arena& scratch,
                   View top = {}) {
  TraceSlice slice("attention of queries to keys");
  if (slice.recorded())
    slice.AddWork(AttentionFlops(shape, segments), static_cast<double>(in.q.NumBytes() + in.kv.NumBytes() + o.NumBytes()));
  MlaAttentionForward(shape, segments, in, o, lse, scratch, top);
}

void TracedBackward(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in, const MlaOutputs& out,
                    const MlaGradients& gradients, Arena& scratch) {
  TraceSlice slice("gradient of queries and keys");
  if (slice.recorded()) {
    slice.AddWork(2 * AttentionFlops(shape, segments), static_cast<double>(2 * (in.q.NumBytes() + in.kv.NumBytes() + out.o.NumBytes())));
  }
  MlaAttentionBackward(shape, segments, in, out, gradients, scratch);
}

int64_t CoveredTokens(const TokenLayout& layout) {
  int64_t tokens = 0;
  for (const Segment& s : layout.segments) tokens += s.q_end - s.q_begin;
  return tokens;
}

}  // namespace

Mla::Mla(const ModelConfig& c, const LayerOptions& options)
    : shape_{c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim,
             static_cast<float>(SoftmaxScale(c, options.faults))},
      pairs_(options.faults.rope_halves ? RopePairs::kHalves : RopePairs::kInterleaved),
      q_rank_(c.q_lora_rank),
      kv_rank_(c.kv_lora_rank),
      chosen_form_(options.chosen_form),
      max_logits_(options.max_logits) {
  if (c.has_indexer()) indexer_.emplace(c, options);
}

Mla::Saved Mla::Allocate(Arena& arena, DType compute, int64_t t, const LayerGroups& groups) const {
  const int64_t keys = t * groups.context.size();
  const auto& [heads, nope, rope, v, scale] = shape_;
  Saved s;
  if (q_rank_ > 0) {
    s.q_low = arena.Alloc(compute, {t, q_rank_});
    s.q_low_rstd = arena.Alloc(DType::kF32, {t});
  }
  s.q = arena.Alloc(compute, {t, heads * (nope + rope)});
  s.kv_low = arena.Alloc(compute, {keys, kv_rank_ + rope});
  s.latent_rstd = arena.Alloc(DType::kF32, {keys});
  s.kv = arena.Alloc(compute, {keys, heads * (nope + v)});
  s.o = arena.Alloc(compute, {t, heads * v});
  s.lse = arena.Alloc(DType::kF32, {t, heads});
  if (max_logits_) s.max_logits = arena.AllocSpan<float>(heads);
  if (indexer_ && keys > indexer_->top_k()) s.chosen = arena.AllocSpan<int32_t>(t * indexer_->top_k());
  return s;
}

ConstView Mla::NormedQueryLatent(Ctx& ctx, const MlaParams& p, ConstView q_low) const {
  const View normed = ctx.scratch.Alloc(ctx.compute, q_low.shape());
  RmsNormForward(q_low, p.q_a_layernorm.value, eps_, normed, {});
  return normed;
}

// With no more keys than index_topk the indexer would choose all of them, and is not asked.
bool Mla::IsSparse(const TokenLayout& layout) const {
  if (!indexer_ || layout.dense_attention) return false;
  if (layout.longest > indexer_->top_k()) return true;
  return std::ranges::any_of(layout.segments, [&](const Segment& s) { return s.k_end - s.k_begin > indexer_->top_k(); });
}

// Documents of up to index_topk tokens choose everything: they keep the bits of dense attention.
Mla::Division Mla::Divide(Ctx& ctx, const TokenLayout& layout, bool sparse) const {
  if (!sparse) return {layout.segments, {}};
  Segment* copy = ctx.scratch.AllocSpan<Segment>(std::ssize(layout.segments)).data();
  const auto sees_all = [&](const Segment& s) { return s.k_end - s.k_begin <= indexer_->top_k(); };
  Segment* middle = std::ranges::copy_if(layout.segments, copy, sees_all).out;
  Segment* all = std::ranges::remove_copy_if(layout.segments, middle, sees_all).out;
  return {{copy, middle}, {middle, all}};
}

Indexer::Inputs Mla::IndexerInput(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& s) const {
  return {in.x, NormedQueryLatent(ctx, p, s.q_low), in.layout.positions, in.rope};
}

bool Mla::Choose(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, Saved& s) const {
  const TraceSlice slice("indexer's choice");
  ArenaScope scope(ctx.scratch);
  const Indexer::Inputs input = IndexerInput(ctx, p, in, s);
  const View own = ctx.scratch.Alloc(ctx.compute, {in.x.dim(0), indexer_->head_dim()});
  indexer_->Keys(ctx, p.indexer, input, own);
  const ContextRows rows(ctx.groups.context, in.x.dim(0), in.layout.sequence);
  const View k = rows.divided() ? ctx.scratch.Alloc(ctx.compute, {rows.all(), indexer_->head_dim()}) : own;
  if (rows.divided()) rows.Gather(own, k);
  return indexer_->Choose(ctx, p.indexer, input, in.layout.segments, k, s.chosen);
}

void Mla::Queries(Ctx& ctx, const MlaParams& p, ConstView x, View q_low, View q_low_rstd, View q) const {
  if (q_rank_ == 0) return LinearForward(ctx, p.q_proj, x, q);
  ArenaScope scope(ctx.scratch);
  LinearForward(ctx, p.q_a_proj, x, q_low);
  const View normed = ctx.scratch.Alloc(ctx.compute, q_low.shape());
  RmsNormForward(q_low, p.q_a_layernorm.value, eps_, normed, q_low_rstd);
  LinearForward(ctx, p.q_b_proj, normed, q);
}

void Mla::RotateQueries(View q, std::span<const int32_t> positions, const RopeTable& rope, RopeDirection direction) const {
  const int64_t width = shape_.nope_dim + shape_.rope_dim;
  TraceSlice slice("rope");
  AddBytes(slice, {q, q});
  RopeRotate(q, {shape_.heads, width, shape_.nope_dim}, {rope.cos, rope.sin, positions}, pairs_, direction);
}

void Mla::RotateKeys(View kv_low, std::span<const int32_t> positions, const RopeTable& rope, RopeDirection direction) const {
  const TraceSlice slice("rope");
  RopeRotate(kv_low, {1, shape_.rope_dim, kv_rank_}, {rope.cos, rope.sin, positions}, pairs_, direction);
}

// kv_low [S,R+Dr] of the tokens of all ranks that share the sequences: what travels between them.
void Mla::LatentsOfAll(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, View kv_low) const {
  const ContextRows rows(ctx.groups.context, in.x.dim(0), in.layout.sequence);
  ArenaScope scope(ctx.scratch);
  const View own = rows.divided() ? ctx.scratch.Alloc(ctx.compute, {in.x.dim(0), kv_low.dim(1)}) : kv_low;
  LinearForward(ctx, p.kv_a_proj_with_mqa, in.x, own);
  RotateKeys(own, in.layout.positions, in.rope, RopeDirection::kForward);
  if (rows.divided()) rows.Gather(own, kv_low);
}

void Mla::Forward(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, View y, Saved& s) const {
  ArenaScope scope(ctx.scratch);
  Queries(ctx, p, in.x, s.q_low, s.q_low_rstd, s.q);
  LatentsOfAll(ctx, p, in, s.kv_low);
  const View latent = ctx.scratch.Alloc(ctx.compute, {s.kv_low.dim(0), kv_rank_});
  RmsNormForward(s.kv_low.Cols(0, kv_rank_), p.kv_a_layernorm.value, eps_, latent, s.latent_rstd);
  LinearForward(ctx, p.kv_b_proj, latent, s.kv);
  RotateQueries(s.q, in.layout.positions, in.rope, RopeDirection::kForward);
  const View k_rope = s.kv_low.Cols(kv_rank_, kv_rank_ + shape_.rope_dim);
  if (CoveredTokens(in.layout) < in.x.dim(0)) Fill(0, s.o);  // attention writes no row of padding
  const bool sparse = IsSparse(in.layout);
  if (!sparse) s.chosen = {};
  const Division division = Divide(ctx, in.layout, sparse);
  const View top = max_logits_ ? ctx.scratch.Alloc(DType::kF32, s.lse.shape()) : View();
  TracedForward(shape_, division.dense, {s.q, s.kv, k_rope}, s.o, s.lse, ctx.scratch, top);
  if (sparse) {
    if (!Choose(ctx, p, in, s)) Fill(kNaN, s.q);
    const Choice choice{s.chosen, indexer_->top_k()};
    const TraceSlice slice("attention to chosen keys");
    ChosenAttentionForward(ctx, {shape_, p.kv_b_proj, division.sparse, choice, chosen_form_, {s.q, s.kv, k_rope}, latent}, s.o, s.lse, top);
  }
  if (max_logits_) LargestScores(in.layout.segments, top, s.max_logits);
  LinearForward(ctx, p.o_proj, s.o, y, Write::kAdd);
}

void Mla::Backward(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& s, ConstView dy, View dx, MlaParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const View d_o = ctx.scratch.Alloc(ctx.compute, s.o.shape());
  LinearBackward(ctx, p.o_proj, s.o, dy, d_o, Write::kOverwrite, grad.o_proj);
  const View dq = ctx.scratch.Alloc(ctx.compute, s.q.shape());
  const View dkv = ctx.scratch.Alloc(ctx.compute, s.kv.shape());
  const View dkv_low = ctx.scratch.Alloc(ctx.compute, s.kv_low.shape());
  const ConstView k_rope = s.kv_low.Cols(kv_rank_, kv_rank_ + shape_.rope_dim);
  const View dk_rope = dkv_low.Cols(kv_rank_, kv_rank_ + shape_.rope_dim);
  const View latent = ctx.scratch.Alloc(ctx.compute, {s.kv_low.dim(0), kv_rank_});
  RmsNormForward(s.kv_low.Cols(0, kv_rank_), p.kv_a_layernorm.value, eps_, latent, {});
  const Division division = Divide(ctx, in.layout, !s.chosen.empty());
  const ContextRows rows(ctx.groups.context, in.x.dim(0), in.layout.sequence);
  BackwardDense(ctx, rows, division.dense, {s.q, s.kv, k_rope}, {s.o, s.lse, d_o}, {dq, dkv, dk_rope});  // zeros the rest
  View d_rows;
  if (!s.chosen.empty()) {
    d_rows = ctx.scratch.Alloc(DType::kF32, s.kv_low.shape());
    Fill(0, d_rows);
    const Choice choice{s.chosen, indexer_->top_k()};
    const ChosenAttention a{shape_, p.kv_b_proj, division.sparse, choice, chosen_form_, {s.q, s.kv, k_rope}, latent};
    const TraceSlice slice("gradient of chosen keys");
    ChosenAttentionBackward(ctx, a, {s.o, s.lse, d_o}, {dq, dkv, d_rows}, grad.kv_b_proj);
    AddScaled(1, dk_rope, d_rows.Cols(kv_rank_, kv_rank_ + shape_.rope_dim));
    Cast(d_rows.Cols(kv_rank_, kv_rank_ + shape_.rope_dim), dk_rope);
  }
  RotateQueries(dq, in.layout.positions, in.rope, RopeDirection::kInverse);
  BackwardQueries(ctx, p, s, in.x, dq, dx, grad);
  BackwardLatent(ctx, p, in, s, {latent, dkv, d_rows, dkv_low}, dx, grad);
}

// Of a document that ranks share, a rank may have two runs of queries, whose keys overlap: one after the other.
void Mla::BackwardDense(Ctx& ctx, const ContextRows& rows, std::span<const Segment> segments, const MlaInputs& in, const MlaOutputs& out,
                        const MlaGradients& gradients) const {
  if (!rows.divided()) return TracedBackward(shape_, segments, in, out, gradients, ctx.scratch);
  ArenaScope scope(ctx.scratch);
  Segment* copy = ctx.scratch.AllocSpan<Segment>(std::ssize(segments)).data();
  const auto is_early = [&](const Segment& s) { return s.q_begin / rows.chunk() % 2 == 0; };
  Segment* middle = std::ranges::copy_if(segments, copy, is_early).out;
  Segment* end = std::ranges::remove_copy_if(segments, middle, is_early).out;
  TracedBackward(shape_, {copy, middle}, in, out, gradients, ctx.scratch);
  const auto like = [&](View x, DType dtype) { return ctx.scratch.Alloc(dtype, x.shape()); };
  const MlaGradients late{like(gradients.dq, ctx.compute), like(gradients.dkv, ctx.compute), like(gradients.dk_rope, ctx.compute)};
  TracedBackward(shape_, {middle, end}, in, out, late, ctx.scratch);
  for (const auto& [to, from] :
       {std::pair(gradients.dq, late.dq), std::pair(gradients.dkv, late.dkv), std::pair(gradients.dk_rope, late.dk_rope)}) {
    const View sum = like(to, DType::kF32);
    Cast(to, sum);
    AddScaled(1, from, sum);
    Cast(sum, to);
  }
}

void Mla::BackwardQueries(Ctx& ctx, const MlaParams& p, const Saved& s, ConstView x, ConstView dq, View dx, MlaParams& grad) const {
  const Comm& tensor = ctx.groups.tensor;
  if (q_rank_ == 0) {
    return AddOverRanks(tensor, ctx.scratch, dx, [&](View part) { LinearBackward(ctx, p.q_proj, x, dq, part, Write::kAdd, grad.q_proj); });
  }
  ArenaScope scope(ctx.scratch);
  const ConstView normed = NormedQueryLatent(ctx, p, s.q_low);
  const View d_low = ctx.scratch.Alloc(tensor.size() > 1 ? DType::kF32 : ctx.compute, s.q_low.shape());
  LinearBackward(ctx, p.q_b_proj, normed, dq, d_low, Write::kOverwrite, grad.q_b_proj);
  if (tensor.size() > 1) tensor.AllSum(d_low);
  RmsNormBackward(d_low, s.q_low, p.q_a_layernorm.value, s.q_low_rstd, {.dx = d_low, .dw = GradView(grad.q_a_layernorm)}, ctx.scratch);
  LinearBackward(ctx, p.q_a_proj, x, AsCompute(ctx, d_low), dx, Write::kAdd, grad.q_a_proj);
}

void Mla::BackwardLatent(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& s, const LatentBackward& d, View dx,
                         MlaParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const View low = s.kv_low.Cols(0, kv_rank_);
  const bool exact = !d.d_rows.empty() || ctx.groups.tensor.size() > 1;
  const View d_latent = ctx.scratch.Alloc(exact ? DType::kF32 : ctx.compute, low.shape());
  LinearBackward(ctx, p.kv_b_proj, d.latent, d.dkv, d_latent, Write::kOverwrite, grad.kv_b_proj);
  if (!d.d_rows.empty()) AddScaled(1, d.d_rows.Cols(0, kv_rank_), d_latent);
  SumOverHeads(ctx, d_latent, d.dkv_low.Cols(kv_rank_, kv_rank_ + shape_.rope_dim));
  RmsNormBackward(d_latent, low, p.kv_a_layernorm.value, s.latent_rstd,
                  {.dx = d.dkv_low.Cols(0, kv_rank_), .dw = GradView(grad.kv_a_layernorm)}, ctx.scratch);
  const View own = OwnRows(ctx, in, d.dkv_low);
  RotateKeys(own, in.layout.positions, in.rope, RopeDirection::kInverse);
  LinearBackward(ctx, p.kv_a_proj_with_mqa, in.x, own, dx, Write::kAdd, grad.kv_a_proj_with_mqa);
}

// The sum of what the ranks that share the sequences have for this rank's tokens, in the compute dtype.
View Mla::OwnRows(Ctx& ctx, const AttentionInputs& in, View all) const {
  const ContextRows rows(ctx.groups.context, in.x.dim(0), in.layout.sequence);
  if (!rows.divided()) return all;
  const View own = ctx.scratch.Alloc(ctx.compute, {in.x.dim(0), all.dim(1)});
  ArenaScope scope(ctx.scratch);
  const View sum = ctx.scratch.Alloc(DType::kF32, own.shape());
  rows.Reduce(AsF32(ctx, all), sum, ctx.scratch);
  Cast(sum, own);
  return own;
}

// What ranks with other heads add to the gradients of the latents and of the key that all heads share.
void Mla::SumOverHeads(Ctx& ctx, View d_latent, View dk_rope) const {
  if (ctx.groups.tensor.size() == 1) return;
  const View rope = ctx.scratch.Alloc(DType::kF32, dk_rope.shape());
  Cast(dk_rope, rope);
  const std::array list = {d_latent, rope};
  ctx.groups.tensor.AllSum(list);
  Cast(rope, dk_rope);
}

// The heads of all ranks side by side: x [T,h*W] of each becomes [T,H*W].
ConstView Mla::AllHeads(Ctx& ctx, ConstView x) const {
  const Comm& tensor = ctx.groups.tensor;
  if (tensor.size() == 1) return x;
  const View all = ctx.scratch.Alloc(x.dtype(), {tensor.size() * x.dim(0), x.dim(1)});
  const View wide = ctx.scratch.Alloc(x.dtype(), {x.dim(0), tensor.size() * x.dim(1)});
  std::vector<std::span<std::byte>> parts;
  for (int64_t r = 0; r < tensor.size(); ++r) parts.push_back(BytesOf(all.Rows(r * x.dim(0), (r + 1) * x.dim(0))));
  tensor.AllGather(BytesOf(x), parts);
  for (int64_t r = 0; r < tensor.size(); ++r) Cast(all.Rows(r * x.dim(0), (r + 1) * x.dim(0)), wide.Cols(r * x.dim(1), (r + 1) * x.dim(1)));
  return wide;
}

double Mla::LearnIndexer(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& s, bool sparse, float factor,
                         MlaParams& grad) const {
  const TraceSlice slice("indexer's loss");
  ArenaScope scope(ctx.scratch);
  const ConstView k_rope = s.kv_low.Cols(kv_rank_, kv_rank_ + shape_.rope_dim);
  IndexerTarget target{shape_, s.q, s.kv, k_rope, s.lse};
  if (!sparse && !s.chosen.empty()) {  // attention saw the chosen keys alone: its sums over all of them are wanted
    const View o = ctx.scratch.Alloc(ctx.compute, s.o.shape()), lse = ctx.scratch.Alloc(DType::kF32, s.lse.shape());
    TracedForward(shape_, in.layout.segments, {s.q, s.kv, k_rope}, o, lse, ctx.scratch);
    target.lse = lse;
  }
  target.shape.heads *= ctx.groups.tensor.size();
  target.q = AllHeads(ctx, target.q);
  target.kv = AllHeads(ctx, target.kv);
  target.lse = AllHeads(ctx, target.lse);
  const std::span<const int32_t> chosen = sparse ? std::span<const int32_t>(s.chosen) : std::span<const int32_t>();
  const ContextRows rows(ctx.groups.context, in.x.dim(0), in.layout.sequence);
  return indexer_->Learn(ctx, p.indexer, IndexerInput(ctx, p, in, s), target, {in.layout.segments, chosen, indexer_->top_k()}, rows, factor,
                         grad.indexer);
}

void Mla::IndexerScores(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& s, int64_t query,
                        std::span<float> scores) const {
  ArenaScope scope(ctx.scratch);
  indexer_->Scores(ctx, p.indexer, IndexerInput(ctx, p, in, s), query, scores);
}

}  // namespace fathom

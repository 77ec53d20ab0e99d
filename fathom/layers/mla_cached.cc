// MLA over a cache of latents: decoding and prefill.
#include <algorithm>
#include <limits>

#include "fathom/base/trace.h"
#include "fathom/kernels/norm/rms_norm.h"
#include "fathom/layers/chosen_attention.h"
#include "fathom/layers/latent_attention.h"
#include "fathom/layers/linear.h"
#include "fathom/layers/mla.h"

namespace fathom {
namespace {

// Up to this many new tokens the absorbed form is cheaper than expanding the whole cache.
constexpr int64_t kAbsorbedTokens = 8;

}  // namespace

// One segment after another. What a sequence shares with the one before it stands there expanded already.
void Mla::Expanded(Ctx& ctx, const MlaParams& p, std::span<const CachedSegment> segments, ConstView q, ConstView cache, View o) const {
  ArenaScope scope(ctx.scratch);
  const auto& [heads, nope, rope, v, scale] = shape_;
  const int64_t longest = std::ranges::max(segments, {}, &CachedSegment::length).length();
  const View rows = ctx.scratch.Alloc(ctx.compute, {longest, kv_rank_ + rope}),
             kv = ctx.scratch.Alloc(ctx.compute, {longest, heads * (nope + v)});
  for (size_t i = 0; i < segments.size(); ++i) {
    const CachedSegment& s = segments[i];
    const int64_t length = s.length(), shared = i == 0 ? 0 : SharedTokens(segments[i - 1], s);
    const View own = rows.Rows(0, length);
    GatherSequence(s, cache, own);
    LinearForward(ctx, p.kv_b_proj, own.Cols(0, kv_rank_).Rows(shared, length), kv.Rows(shared, length));
    const Segment all{0, s.end - s.begin, 0, length};
    const TraceSlice slice("attention of queries to keys");
    MlaAttentionForward(shape_, {&all, 1}, {q.Rows(s.begin, s.end), kv.Rows(0, length), own.Cols(kv_rank_, kv_rank_ + rope)},
                        o.Rows(s.begin, s.end), {}, ctx.scratch);
  }
}

// Writes the tokens' keys; then, once a sequence has more than index_topk, the keys that each token sees. A choice among scores that are
// not finite turns q into NaN.
std::span<int32_t> Mla::ChooseCached(Ctx& ctx, const MlaParams& p, const Indexer::Inputs& input, const CachedInputs& in, View q) const {
  const TraceSlice slice("indexer's choice");
  const CachedRows& rows = in.rows;
  const int64_t m = rows.count(), k = indexer_->top_k();
  const View keys = ctx.scratch.Alloc(ctx.compute, {m, indexer_->head_dim()});
  indexer_->Keys(ctx, p.indexer, input, keys);
  StoreRows(keys, rows, in.cache.indexer_keys.mutable_view());
  if (std::ranges::all_of(rows.segments, [&](const CachedSegment& s) { return s.length() <= k; })) return {};
  const std::span<int32_t> chosen = ctx.scratch.AllocSpan<int32_t>(m * k);
  const std::span<Segment> segments = ctx.scratch.AllocSpan<Segment>(std::ssize(rows.segments));
  const std::span<BlockTable> tables = ctx.scratch.AllocSpan<BlockTable>(std::ssize(rows.segments));
  for (size_t i = 0; i < segments.size(); ++i) {
    const CachedSegment& s = rows.segments[i];
    segments[i] = {s.begin, s.end, 0, s.length()};
    tables[i] = s.blocks;
  }
  if (!indexer_->Choose(ctx, p.indexer, input, segments, in.cache.indexer_keys.view(), chosen, tables)) {
    Fill(std::numeric_limits<float>::quiet_NaN(), q);
  }
  return chosen;
}

// Whether many tokens see all keys, and may be computed together.
bool Mla::IsExpanded(const Ctx& ctx, const CachedSegment& s) const {
  return ctx.arithmetic != Arithmetic::kByRow && s.end - s.begin > kAbsorbedTokens && (!indexer_ || s.length() <= indexer_->top_k());
}

// Whether many tokens of one sequence see chosen keys.
bool Mla::MayShare(const Ctx& ctx, const CachedSegment& s) const {
  return ctx.arithmetic != Arithmetic::kByRow && s.end - s.begin > kAbsorbedTokens && indexer_ && s.length() > indexer_->top_k();
}

// Neighbouring sequences in the absorbed form share its products.
void Mla::AttendCached(Ctx& ctx, const MlaParams& p, const CachedInputs& in, std::span<const int32_t> chosen, ConstView q, View o) const {
  const CachedRows& rows = in.rows;
  const ConstView cache = in.cache.latent_rope.view();
  for (size_t i = 0; i < rows.segments.size();) {
    const CachedSegment& first = rows.segments[i++];
    if (IsExpanded(ctx, first)) {
      const size_t begin = i - 1;
      while (i < rows.segments.size() && IsExpanded(ctx, rows.segments[i])) ++i;
      Expanded(ctx, p, rows.segments.subspan(begin, i - begin), q, cache, o);
      continue;
    }
    if (MayShare(ctx, first)) {
      const Choice choice{chosen, indexer_->top_k()};
      const TraceSlice slice("attention to chosen keys");
      ChosenAttentionCached(ctx, {shape_, p.kv_b_proj, rows, first, choice, chosen_form_, cache}, q, o);
      continue;
    }
    const auto is_absorbed = [&](const CachedSegment& s) { return !IsExpanded(ctx, s) && !MayShare(ctx, s); };
    int64_t end = first.end;
    for (; i < rows.segments.size() && is_absorbed(rows.segments[i]); ++i) end = rows.segments[i].end;
    const Segment together{first.begin, end, 0, cache.dim(0)};
    const LatentAttention a{shape_, p.kv_b_proj,  {&together, 1}, chosen, indexer_ ? indexer_->top_k() : 0,
                            cache,  rows.visible, rows.tables};
    const TraceSlice slice("attention to the cache");
    LatentAttentionForward(ctx, a, q, o, {});
  }
}

void Mla::ForwardCached(Ctx& ctx, const MlaParams& p, const CachedInputs& in, ConstView x, View y) const {
  ArenaScope scope(ctx.scratch);
  const int64_t m = x.dim(0);
  const View q = ctx.scratch.Alloc(ctx.compute, {m, shape_.heads * (shape_.nope_dim + shape_.rope_dim)});
  const View q_low = q_rank_ > 0 ? ctx.scratch.Alloc(ctx.compute, {m, q_rank_}) : View();
  Queries(ctx, p, x, q_low, {}, q);
  const View kv_low = ctx.scratch.Alloc(ctx.compute, {m, kv_rank_ + shape_.rope_dim});
  LinearForward(ctx, p.kv_a_proj_with_mqa, x, kv_low);
  RmsNormForward(kv_low.Cols(0, kv_rank_), p.kv_a_layernorm.value, eps_, kv_low.Cols(0, kv_rank_), {});
  RotateQueries(q, in.rows.positions, in.rope, RopeDirection::kForward);
  RotateKeys(kv_low, in.rows.positions, in.rope, RopeDirection::kForward);
  StoreRows(kv_low, in.rows, in.cache.latent_rope.mutable_view());
  std::span<const int32_t> chosen;
  if (indexer_) chosen = ChooseCached(ctx, p, {x, NormedQueryLatent(ctx, p, q_low), in.rows.positions, in.rope}, in, q);
  const View o = ctx.scratch.Alloc(ctx.compute, {m, shape_.heads * shape_.v_dim});
  AttendCached(ctx, p, in, chosen, q, o);
  LinearForward(ctx, p.o_proj, o, y, Write::kAdd);
}

}  // namespace fathom

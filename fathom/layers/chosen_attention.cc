#include "fathom/layers/chosen_attention.h"

#include <algorithm>

#include "fathom/kernels/attention/mla_chosen.h"
#include "fathom/layers/attention_cost.h"
#include "fathom/layers/latent_attention.h"
#include "fathom/layers/linear.h"

namespace fathom {
namespace {

// How blocks of queries are to be divided between the forms.
struct Plan {
  MlaShape shape;
  int64_t rank;
  Choice choice;
  ChosenForm form;
  AttentionPass pass;
  bool expands;  // keys are not expanded yet
};
struct Division {
  std::span<const Segment> absorbed;
  std::span<SharedKeys> shared;
};

// The most rows for which queries [begin, end) share keys. What is known before the choice is: plans of memory and runs agree.
int64_t Room(Ctx& ctx, const Plan& plan, const Segment& s, int64_t begin, int64_t end) {
  const auto visible = [&](int64_t t) { return s.k_end - (s.q_end - 1 - t) - s.k_begin; };
  if (plan.form == ChosenForm::kShared) return visible(end - 1);
  int64_t chosen = 0;
  for (int64_t t = begin; t < end; ++t) chosen += std::min(plan.choice.k, visible(t));
  ChosenWork work{plan.shape, plan.rank, end - begin, chosen};
  if (plan.expands) work.expansions = static_cast<double>(end - begin) / static_cast<double>(s.q_end - s.q_begin);
  return std::min(visible(end - 1), MostSharedRows(MeasuredRates(ctx.compute, plan.pass), plan.pass, work));
}

// f(begin, end, segment) for every block of queries.
template <class F>
void ForBlocks(const Plan& plan, std::span<const Segment> segments, const F& f) {
  const int64_t most = plan.pass == AttentionPass::kForward ? kForwardQueries : kMostSharedQueries;
  for (const Segment& s : segments) {
    for (int64_t t = s.q_begin; t < s.q_end; t += most) f(t, std::min(s.q_end, t + most), s);
  }
}

// Where memory is counted, every query takes both forms.
Division Divide(Ctx& ctx, const Plan& plan, std::span<const Segment> segments) {
  if (plan.form == ChosenForm::kAbsorbed) return {segments, {}};
  int64_t count = 0, longest = 0;
  for (const Segment& s : segments) longest = std::max(longest, s.k_end - s.k_begin);
  ForBlocks(plan, segments, [&](int64_t, int64_t, const Segment&) { ++count; });
  const std::span<SharedKeys> blocks = ctx.scratch.AllocSpan<SharedKeys>(count);
  const std::span<Segment> absorbed = ctx.scratch.AllocSpan<Segment>(count);
  size_t at = 0;
  ForBlocks(plan, segments, [&](int64_t begin, int64_t end, const Segment& s) {
    absorbed[at] = {begin, end, s.k_begin, s.k_end - (s.q_end - end)};
    std::construct_at(&blocks[at++], AllocSharedKeys(ctx.scratch, begin, end, Room(ctx, plan, s, begin, end)));
  });
  if (ctx.scratch.counting()) return {segments, blocks};
  UniteKeys(plan.choice, longest, blocks, ctx.scratch);
  size_t shared = 0, alone = 0;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].count() > 0) {
      blocks[shared++] = blocks[i];
    } else {
      absorbed[alone++] = absorbed[i];
    }
  }
  return {absorbed.first(alone), blocks.first(shared)};
}

// Segments cut where queries begin to see more than k keys: those before it see all, as in dense attention.
struct Cut {
  std::span<const Segment> dense, chosen;
};
Cut CutAt(Ctx& ctx, std::span<const Segment> segments, int64_t k) {
  const std::span<Segment> dense = ctx.scratch.AllocSpan<Segment>(std::ssize(segments)),
                           chosen = ctx.scratch.AllocSpan<Segment>(std::ssize(segments));
  size_t early = 0, late = 0;
  for (const Segment& s : segments) {
    const int64_t queries = s.q_end - s.q_begin, first = s.k_end - s.k_begin - queries;  // the first one sees `first` keys and itself
    const int64_t n = std::clamp<int64_t>(k - first, 0, queries);
    if (n > 0) dense[early++] = {s.q_begin, s.q_begin + n, s.k_begin, s.k_end - (queries - n)};
    if (n < queries) chosen[late++] = {s.q_begin + n, s.q_end, s.k_begin, s.k_end};
  }
  return {dense.first(early), chosen.first(late)};
}

Plan PlanOf(const ChosenAttention& a, AttentionPass pass) { return {a.shape, a.kv_b_proj.value.dim(1), a.choice, a.form, pass, false}; }

// [S,R+Dr]: the normed latents and the rotated keys side by side, as the cache has them.
LatentAttention Absorbed(Ctx& ctx, const ChosenAttention& a, std::span<const Segment> segments) {
  const int64_t rank = a.latent.dim(1), width = rank + a.shape.rope_dim;
  const View rows = ctx.scratch.Alloc(ctx.compute, {a.latent.dim(0), width});
  Cast(a.latent, rows.Cols(0, rank));
  Cast(a.in.k_rope, rows.Cols(rank, width));
  return {a.shape, a.kv_b_proj, segments, a.choice.chosen, a.choice.k, rows};
}

// The rows that the blocks share, of one sequence, each once and rising; the blocks' own become places in that list.
std::span<const int32_t> Compact(Ctx& ctx, std::span<SharedKeys> blocks, int64_t keys) {
  const std::span<int32_t> place = ctx.scratch.AllocSpan<int32_t>(keys), list = ctx.scratch.AllocSpan<int32_t>(keys);
  std::ranges::fill(place, 0);
  for (const SharedKeys& b : blocks) {
    for (const int32_t row : b.rows) place[static_cast<size_t>(row)] = 1;
  }
  int32_t count = 0;
  for (int32_t row = 0; row < keys; ++row) {
    if (place[static_cast<size_t>(row)] == 0) continue;
    place[static_cast<size_t>(row)] = count;
    list[static_cast<size_t>(count++)] = row;
  }
  for (const SharedKeys& b : blocks) {
    for (int32_t& row : b.rows) row = place[static_cast<size_t>(row)];
  }
  return list.first(static_cast<size_t>(count));
}

std::span<const int32_t> RowsToExpand(Ctx& ctx, std::span<SharedKeys> blocks, int64_t keys) {
  if (!ctx.scratch.counting()) return Compact(ctx, blocks, keys);
  int64_t most = 0;
  for (const SharedKeys& b : blocks) most += b.count();
  ctx.scratch.AllocSpan<int32_t>(keys);
  return ctx.scratch.AllocSpan<int32_t>(keys).first(static_cast<size_t>(std::min(most, keys)));
}

void SharedCached(Ctx& ctx, const CachedChosenAttention& a, std::span<SharedKeys> blocks, ConstView q, View o) {
  if (blocks.empty()) return;
  ArenaScope scope(ctx.scratch);
  const MlaShape& s = a.shape;
  const int64_t rank = a.kv_b_proj.value.dim(1);
  const std::span<const int32_t> tokens = RowsToExpand(ctx, blocks, a.segment.length());
  const View rows = ctx.scratch.Alloc(ctx.compute, {std::ssize(tokens), a.cache.dim(1)});
  GatherTokens(a.segment, tokens, a.cache, rows);
  const View kv = ctx.scratch.Alloc(ctx.compute, {rows.dim(0), s.heads * (s.nope_dim + s.v_dim)});
  LinearForward(ctx, a.kv_b_proj, rows.Cols(0, rank), kv);
  MlaChosenForward(s, blocks, {q, kv, rows.Cols(rank, rank + s.rope_dim)}, o, {}, ctx.scratch);
}

}  // namespace

void ChosenAttentionForward(Ctx& ctx, const ChosenAttention& a, View o, View lse, View top) {
  ArenaScope scope(ctx.scratch);
  const Cut cut = a.form == ChosenForm::kCheapest ? CutAt(ctx, a.segments, a.choice.k) : Cut{{}, a.segments};
  if (!cut.dense.empty()) MlaAttentionForward(a.shape, cut.dense, a.in, o, lse, ctx.scratch, top);
  const Division d = Divide(ctx, PlanOf(a, AttentionPass::kForward), cut.chosen);
  if (!d.shared.empty()) MlaChosenForward(a.shape, d.shared, a.in, o, lse, ctx.scratch, top);
  if (!d.absorbed.empty()) LatentAttentionForward(ctx, Absorbed(ctx, a, d.absorbed), a.in.q, o, lse, top);
}

void ChosenAttentionBackward(Ctx& ctx, const ChosenAttention& a, const MlaOutputs& out, const ChosenGradients& d, Weight& grad) {
  ArenaScope scope(ctx.scratch);
  const Division division = Divide(ctx, PlanOf(a, AttentionPass::kBackward), a.segments);
  const int64_t rank = a.latent.dim(1), width = rank + a.shape.rope_dim;
  if (!division.shared.empty()) {
    MlaChosenBackward(a.shape, division.shared, a.in, out, {d.dq, d.dkv, d.d_rows.Cols(rank, width)}, ctx.scratch);
  }
  if (division.absorbed.empty()) return;
  LatentAttentionBackward(ctx, Absorbed(ctx, a, division.absorbed), {a.in.q, out.o, out.lse, out.d_o, d.dq}, d.d_rows, grad);
}

void ChosenAttentionCached(Ctx& ctx, const CachedChosenAttention& a, ConstView q, View o) {
  ArenaScope scope(ctx.scratch);
  const CachedSegment& s = a.segment;
  const Segment all{s.begin, s.end, 0, s.length()};
  const Plan plan{a.shape, a.kv_b_proj.value.dim(1), a.choice, a.form, AttentionPass::kForward, true};
  const Division d = Divide(ctx, plan, {&all, 1});
  SharedCached(ctx, a, d.shared, q, o);
  if (d.absorbed.empty()) return;
  LatentAttentionForward(ctx, {a.shape, a.kv_b_proj, d.absorbed, a.choice.chosen, a.choice.k, a.cache, a.rows.visible, a.rows.tables}, q, o,
                         {});
}

}  // namespace fathom

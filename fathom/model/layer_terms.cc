#include "fathom/model/layer_terms.h"

#include <algorithm>

#include "fathom/kernels/moe/balance.h"
#include "fathom/kernels/moe/router.h"
#include "fathom/layers/context_rows.h"

namespace fathom {
namespace {

std::span<const float> DocumentMask(Ctx& ctx, const TokenLayout& layout) {
  const std::span<float> mask = ctx.scratch.AllocSpan<float>(std::ssize(layout.positions));
  std::ranges::fill(mask, 0.0f);
  for (const Segment& s : layout.segments) std::fill(mask.begin() + s.q_begin, mask.begin() + s.q_end, 1.0f);
  return mask;
}

// First token of each sequence, and the end.
std::span<const int64_t> Sequences(Ctx& ctx, const TokenLayout& layout) {
  const int64_t tokens = std::ssize(layout.positions), length = layout.sequence > 0 ? layout.sequence : tokens;
  const int64_t count = (tokens + length - 1) / length;
  const std::span<int64_t> begin = ctx.scratch.AllocSpan<int64_t>(count + 1);
  for (int64_t i = 0; i <= count; ++i) begin[static_cast<size_t>(i)] = std::min(i * length, tokens);
  return begin;
}

}  // namespace

LayerTerms::LayerTerms(Ctx& ctx, const TokenBatch& batch, const RopeTable& rope, const LossOptions& options)
    : layout_(batch.layout), whole_(batch.whole != nullptr ? batch.whole->layout : batch.layout), rope_(rope), options_(options) {
  if (options.balance.padding) return;
  in_document_ = DocumentMask(ctx, layout_);
  whole_in_document_ = batch.whole != nullptr && options.balance.factor > 0 ? DocumentMask(ctx, whole_) : in_document_;
}

ConstView LayerTerms::Apply(Ctx& ctx, const Block& block, const BlockParams& p, int64_t layer, const Block::Saved& saved,
                            BlockParams& grad) const {
  if (options_.indexer.factor > 0) LearnIndexer(ctx, block, p, layer, saved, grad);
  RaiseMaxLogits(layer, saved.attention.max_logits);
  if (!block.is_moe()) return {};
  CountExperts(block.moe(), layer, saved.moe);
  return options_.balance.factor > 0 ? Balance(ctx, block.moe(), layer, saved.moe) : ConstView();
}

void LayerTerms::LearnIndexer(Ctx& ctx, const Block& block, const BlockParams& p, int64_t layer, const Block::Saved& saved,
                              BlockParams& grad) const {
  const double kl = block.LearnIndexer(ctx, p, {layout_, rope_}, saved, options_.indexer.sparse, options_.indexer.factor, grad);
  if (!options_.totals.indexer_kl.empty()) options_.totals.indexer_kl[static_cast<size_t>(layer)] += kl;
}

void LayerTerms::RaiseMaxLogits(int64_t layer, std::span<const float> max_logits) const {
  if (options_.totals.max_logits.empty()) return;
  const auto heads = max_logits.size();
  const std::span<float> largest = options_.totals.max_logits.subspan(static_cast<size_t>(layer) * heads, heads);
  std::ranges::transform(max_logits, largest, largest.begin(), [](float x, float y) { return std::max(x, y); });
}

void LayerTerms::CountExperts(const Moe& moe, int64_t layer, const Moe::Saved& saved) const {
  const LayerTotals& totals = options_.totals;
  if (totals.expert_counts.empty()) return;
  const auto experts = static_cast<size_t>(moe.router().experts);
  CountAssignments(saved.ids, moe.router().chosen, in_document_,
                   totals.expert_counts.subspan(static_cast<size_t>(layer) * experts, experts));
  totals.dropped[static_cast<size_t>(layer)] += std::ranges::count_if(saved.slot_expert, [](int32_t e) { return e < 0; });
}

ConstView LayerTerms::Balance(Ctx& ctx, const Moe& moe, int64_t layer, const Moe::Saved& saved) const {
  const BalanceTraining& how = options_.balance;
  const View d_scores = ctx.scratch.Alloc(DType::kF32, saved.scores.shape());
  ArenaScope scope(ctx.scratch);
  std::span<const int32_t> counted = saved.ids;
  if (how.highest_scores) {
    const std::span<int32_t> ids = ctx.scratch.AllocSpan<int32_t>(std::ssize(saved.ids));
    RouterShape plain = moe.router();
    plain.groups = plain.kept_groups = 1;
    RouterChoice(plain, saved.scores, {}, ids);
    counted = ids;
  }
  // Ranks that share the sequences all compute the loss of the whole, of which the first reports it.
  const ContextRows rows(ctx.groups.context, d_scores.dim(0), layout_.sequence);
  View scores = saved.scores, d_all = d_scores;
  if (rows.divided()) {
    for (View* all : {&scores, &d_all}) *all = ctx.scratch.Alloc(DType::kF32, {rows.all(), d_scores.dim(1)});
    rows.Gather(saved.scores, scores);
    counted = rows.GatherIds(counted, moe.router().chosen, ctx.scratch);
  }
  const std::span<const int64_t> begin = Sequences(ctx, whole_);
  const auto sequences = static_cast<double>(begin.size() - 1);
  const double mean = BalanceLoss(how.form, {scores, moe.router().chosen, counted, whole_in_document_, begin},
                                  how.factor * static_cast<float>(sequences), d_all, ctx.scratch);
  if (rows.divided())
    rows.ForChunks(
        [&](int64_t own, int64_t whole) { Cast(d_all.Rows(whole, whole + rows.chunk()), d_scores.Rows(own, own + rows.chunk())); });
  if (!options_.totals.balance.empty() && ctx.groups.context.rank() == 0)
    options_.totals.balance[static_cast<size_t>(layer)] += sequences * mean;
  return d_scores;
}

}  // namespace fathom

#include "fathom/model/mtp_chain.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "fathom/layers/context_rows.h"

namespace fathom {

void RollWithinSegments(const TokenBatch& from, std::span<int32_t> ids, std::span<int32_t> targets, std::span<float> weights) {
  size_t done = 0;  // tokens outside every segment are padding
  const auto clear = [&](size_t begin, size_t end) {
    std::fill(ids.begin() + static_cast<ptrdiff_t>(begin), ids.begin() + static_cast<ptrdiff_t>(end), 0);
    std::fill(targets.begin() + static_cast<ptrdiff_t>(begin), targets.begin() + static_cast<ptrdiff_t>(end), 0);
    std::fill(weights.begin() + static_cast<ptrdiff_t>(begin), weights.begin() + static_cast<ptrdiff_t>(end), 0.0f);
  };
  for (const Segment& s : from.layout.segments) {
    const auto begin = static_cast<size_t>(s.q_begin), last = static_cast<size_t>(s.q_end - 1);
    clear(done, begin);
    for (size_t t = begin; t < last; ++t) {
      ids[t] = from.ids[t + 1];
      targets[t] = from.targets[t + 1];
      weights[t] = from.weights[t + 1];
    }
    clear(last, last + 1);
    done = last + 1;
  }
  clear(done, ids.size());
}

double MtpWeight(const TokenBatch& batch, int64_t modules) {
  double total = 0;
  for (const Segment& s : batch.layout.segments) {
    for (int64_t t = s.q_begin + 1; t < s.q_end; ++t) {
      total += static_cast<double>(batch.weights[static_cast<size_t>(t)]) * static_cast<double>(std::min(modules, t - s.q_begin));
    }
  }
  return total;
}

namespace {

// The final norm and head of what lies below module k: the main model, or the module before.
HeadParams HeadBelow(const DecoderParams& p, size_t k) { return k == 0 ? HeadParams{p.norm, p.lm_head} : HeadOf(p.mtp[k - 1]); }

}  // namespace

struct MtpChain::Link {
  std::span<int32_t> ids, targets;  // [T] rolled
  std::span<float> weights;
  Mtp::Saved saved;
};

MtpChain::MtpChain(const ModelConfig& c, const LayerOptions& options)
    : hidden_(c.hidden_size), head_(c.vocab_size, static_cast<float>(c.rms_norm_eps)) {
  for (int64_t k = 0; k < c.num_nextn_predict_layers; ++k) modules_.emplace_back(c, c.num_hidden_layers + k, options);
}

MtpChain::Link MtpChain::AllocateLink(Arena& arena, DType compute, const Mtp& module, int64_t tokens, Remat remat,
                                      const LayerGroups& groups) const {
  Link link;
  link.ids = arena.AllocSpan<int32_t>(tokens);
  link.targets = arena.AllocSpan<int32_t>(tokens);
  link.weights = arena.AllocSpan<float>(tokens);
  link.saved = module.Allocate(arena, compute, tokens, remat, groups);
  return link;
}

ConstView MtpChain::State(Ctx& ctx, const HeadParams& head, MtpInput input, ConstView h) const {
  if (input == MtpInput::kBeforeNorm) return h;
  const View state = ctx.scratch.Alloc(DType::kF32, h.shape());
  head_.Normalize(ctx, head, h, state, {});
  return state;
}

// dh += the gradient that came to the state made of h.
void MtpChain::BackwardState(Ctx& ctx, const HeadParams& head, MtpInput input, ConstView h, ConstView d_state, View dh,
                             HeadGrads grad) const {
  if (input == MtpInput::kBeforeNorm) return AddScaled(1, d_state, dh);
  ArenaScope scope(ctx.scratch);
  const View state = ctx.scratch.Alloc(DType::kF32, h.shape()), rstd = ctx.scratch.Alloc(DType::kF32, {h.dim(0)});
  head_.Normalize(ctx, head, h, state, rstd);
  head_.BackwardNorm(ctx, head, d_state, {h, rstd}, dh, true, grad);
}

// What module k is fed, from what the modules below it left; in scratch.
Mtp::Inputs MtpChain::LinkInputs(Ctx& ctx, const DecoderParams& p, const Inputs& in, Remat remat, std::span<const Link> links,
                                 size_t k) const {
  const ConstView below = k == 0 ? in.h : ConstView(links[k - 1].saved.h);
  return {links[k].ids, State(ctx, HeadBelow(p, k), in.options.input, below), {in.batch.layout, in.rope}, remat};
}

namespace {

// The tokens of whole sequences after each roll, of which ranks that share them take their own.
class RolledSequences {
 public:
  RolledSequences(const Comm& context, const TokenBatch& batch)
      : rows_(context, std::ssize(batch.ids), batch.layout.sequence), whole_(batch.whole != nullptr ? *batch.whole : batch) {}

  void Roll(const TokenBatch& before, std::span<int32_t> ids, std::span<int32_t> targets, std::span<float> weights) {
    if (!rows_.divided()) return RollWithinSegments(before, ids, targets, weights);
    const size_t n = whole_.ids.size();
    std::vector<int32_t> next_ids(n), next_targets(n);
    std::vector<float> next_weights(n);
    RollWithinSegments(whole_, next_ids, next_targets, next_weights);
    ids_ = std::move(next_ids);
    targets_ = std::move(next_targets);
    weights_ = std::move(next_weights);
    whole_ = {ids_, targets_, weights_, whole_.layout};
    rows_.ForChunks([&](int64_t own, int64_t from) {
      std::copy_n(ids_.begin() + from, rows_.chunk(), ids.begin() + own);
      std::copy_n(targets_.begin() + from, rows_.chunk(), targets.begin() + own);
      std::copy_n(weights_.begin() + from, rows_.chunk(), weights.begin() + own);
    });
  }

 private:
  ContextRows rows_;
  TokenBatch whole_;
  std::vector<int32_t> ids_, targets_;
  std::vector<float> weights_;
};

}  // namespace

void MtpChain::ForwardLinks(Ctx& ctx, const DecoderParams& p, const Inputs& in, Remat remat, std::span<Link> links) const {
  TokenBatch tokens = in.batch;
  RolledSequences rolled(ctx.groups.context, in.batch);
  for (size_t k = 0; k < links.size(); ++k) {
    Link& link = *std::construct_at(&links[k], AllocateLink(ctx.saved, ctx.compute, modules_[k], in.h.dim(0), remat, ctx.groups));
    rolled.Roll(tokens, link.ids, link.targets, link.weights);
    tokens = {link.ids, link.targets, link.weights, in.batch.layout};
    ArenaScope scope(ctx.scratch);
    const LayerScope weights(p, modules_[k].layer());
    modules_[k].Forward(ctx, p.mtp[k], LinkInputs(ctx, p, in, remat, links, k), link.saved);
  }
}

// The module's own loss: overwrites dh [T,D] F32 with its gradient on the module's residual stream.
CrossEntropySums MtpChain::BackwardHead(Ctx& ctx, const MtpParams& p, const Link& link, float scale, View dh, MtpParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const View x = ctx.scratch.Alloc(ctx.compute, dh.shape()), rstd = ctx.scratch.Alloc(DType::kF32, {dh.dim(0)});
  head_.Normalize(ctx, HeadOf(p), link.saved.h, x, rstd);
  const CrossEntropySums sums = head_.LossAndGradient(ctx, HeadOf(p), x, {link.targets, link.weights, 0, scale}, dh, HeadOf(grad));
  head_.BackwardNorm(ctx, HeadOf(p), dh, {link.saved.h, rstd}, dh, false, HeadOf(grad));
  return sums;
}

CrossEntropySums MtpChain::ForwardBackward(Ctx& ctx, const DecoderParams& p, const Inputs& in, const LayerTerms& terms, Remat remat,
                                           View dh, DecoderParams& grads) const {
  const MtpOptions& options = in.options;
  FATHOM_CHECK(options.modules <= size(), "{} of {} MTP modules", options.modules, size());
  ArenaScope keep(ctx.saved);
  ArenaScope scope(ctx.scratch);
  const std::span<Link> links = ctx.saved.AllocSpan<Link>(options.modules);
  ForwardLinks(ctx, p, in, remat, links);
  CrossEntropySums sums;
  const View d_own = ctx.scratch.Alloc(DType::kF32, in.h.shape()), d_state = ctx.scratch.Alloc(DType::kF32, in.h.shape());
  for (size_t k = links.size(); k-- > 0;) {
    ArenaScope inner(ctx.scratch);
    const LayerScope weights(p, modules_[k].layer()), gradients(grads, modules_[k].layer());
    Link& link = links[k];
    sums += BackwardHead(ctx, p.mtp[k], link, options.scale, d_own, grads.mtp[k]);
    if (k + 1 < links.size()) BackwardState(ctx, HeadOf(p.mtp[k]), options.input, link.saved.h, d_state, d_own, HeadOf(grads.mtp[k]));
    modules_[k].Backward(ctx, p.mtp[k], LinkInputs(ctx, p, in, remat, links, k), terms, link.saved, {d_own, d_state}, grads.mtp[k]);
  }
  if (!links.empty()) BackwardState(ctx, {p.norm, p.lm_head}, options.input, in.h, d_state, dh, {grads.norm, grads.lm_head});
  return sums;
}

void MtpChain::LearnIndexers(Ctx& ctx, const DecoderParams& p, const Inputs& in, const LayerTerms& terms, DecoderParams& grads) const {
  ArenaScope keep(ctx.saved);
  const std::span<Link> links = ctx.saved.AllocSpan<Link>(in.options.modules);
  ForwardLinks(ctx, p, in, Remat::kFull, links);
  for (size_t k = 0; k < links.size(); ++k) {
    ArenaScope scope(ctx.scratch);
    const LayerScope weights(p, modules_[k].layer()), gradients(grads, modules_[k].layer());
    const Block& block = modules_[k].block();
    const LayerPass pass{block, p.mtp[k].block, {in.batch.layout, in.rope}, Remat::kFull};
    const Block::Saved saved = Restored(ctx, pass, links[k].saved.block);
    terms.Apply(ctx, block, p.mtp[k].block, modules_[k].layer(), saved, grads.mtp[k].block);
  }
}

// The last module's normed stream [T,D], in scratch; overwrites weights [T] with those of its targets.
ConstView MtpChain::Output(Ctx& ctx, const DecoderParams& p, const Inputs& in, std::span<float> weights) const {
  const int64_t modules = in.options.modules;
  FATHOM_CHECK(0 < modules && modules <= size(), "module {} of {}", modules, size());
  const View x = ctx.scratch.Alloc(ctx.compute, in.h.shape());
  ArenaScope keep(ctx.saved);
  const std::span<Link> links = ctx.saved.AllocSpan<Link>(modules);
  ForwardLinks(ctx, p, in, Remat::kFull, links);
  std::ranges::copy(links.back().weights, weights.begin());
  head_.Normalize(ctx, HeadOf(p.mtp[static_cast<size_t>(modules - 1)]), links.back().saved.h, x, {});
  return x;
}

void MtpChain::Compare(Ctx& ctx, const DecoderParams& p, const Inputs& in, std::span<const int32_t> best, LossSums& sums) const {
  ArenaScope scope(ctx.scratch);
  const auto k = static_cast<size_t>(in.options.eval_module);
  const std::span<float> weights = ctx.scratch.AllocSpan<float>(in.h.dim(0));
  const std::span<int32_t> predicted = ctx.scratch.AllocSpan<int32_t>(in.h.dim(0));
  Inputs up_to = in;
  up_to.options.modules = in.options.eval_module;
  const ConstView x = Output(ctx, p, up_to, weights);
  head_.Predict(ctx, HeadOf(p.mtp[k - 1]), x, predicted);
  const ContextRows rows(ctx.groups.context, std::ssize(best), in.batch.layout.sequence);
  const auto count = [&](size_t begin, size_t end, size_t shift, std::span<const int32_t> whole) {
    for (size_t t = begin; t < end; ++t) {
      const auto weight = static_cast<double>(weights[t]);
      sums.mtp_compared += weight;
      if (weight > 0 && predicted[t] == whole[t + shift]) sums.mtp_accepted += weight;
    }
  };
  if (!rows.divided()) return count(0, best.size(), k, best);
  const std::span<const int32_t> whole = rows.GatherIds(best, 1, ctx.scratch);
  rows.ForChunks([&](int64_t own, int64_t from) {
    count(static_cast<size_t>(own), static_cast<size_t>(own + rows.chunk()), static_cast<size_t>(from - own) + k, whole);
  });
}

void MtpChain::Logits(Ctx& ctx, const DecoderParams& p, const Inputs& in, View logits) const {
  ArenaScope scope(ctx.scratch);
  const std::span<float> weights = ctx.scratch.AllocSpan<float>(in.h.dim(0));
  const ConstView x = Output(ctx, p, in, weights);
  head_.Logits(ctx, HeadOf(p.mtp[static_cast<size_t>(in.options.modules - 1)]), x, logits);
}

}  // namespace fathom

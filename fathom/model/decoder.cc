#include "fathom/model/decoder.h"

#include <algorithm>
#include <memory>

#include "fathom/kernels/elementwise/embedding.h"

namespace fathom {

Decoder::Decoder(const ModelConfig& config, const LayerOptions& options)
    : config_(config), faults_(options.faults), head_(config.vocab_size, static_cast<float>(config.rms_norm_eps)), mtp_(config, options) {
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) blocks_.emplace_back(config, config.is_moe_layer(i), options);
  EnsurePositions(1);
}

void Decoder::EnsurePositions(int64_t length) {
  if (rope_ == nullptr || rope_->length() < length) rope_ = std::make_shared<const RopeTable>(config_, length, faults_);
}

void Decoder::Forward(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, const TokenLayout& layout, View h,
                      const LayerObserver& observer) const {
  EmbeddingForward(p.embed_tokens.value, ids, h);
  if (observer) observer(-1, h, {});
  for (size_t i = 0; i < blocks_.size(); ++i) {
    ArenaScope scope(ctx.scratch);
    Block::Saved saved = blocks_[i].Allocate(ctx.scratch, ctx.compute, h.dim(0), false);
    blocks_[i].Forward(ctx, p.layers[i], {layout, *rope_}, h, saved);
    if (observer) observer(static_cast<int64_t>(i), h, saved);
  }
}

void Decoder::ForwardLayer(Ctx& ctx, const DecoderParams& p, int64_t layer, const TokenLayout& layout, View h, Block::Saved& saved) const {
  block(layer).Forward(ctx, p.layers[static_cast<size_t>(layer)], {layout, *rope_}, h, saved);
}

void Decoder::IndexerScores(Ctx& ctx, const DecoderParams& p, int64_t layer, const TokenLayout& layout, const Block::Saved& saved,
                            int64_t query, std::span<float> scores) const {
  block(layer).IndexerScores(ctx, p.layers[static_cast<size_t>(layer)], {layout, *rope_}, saved, query, scores);
}

void Decoder::KeepLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, Remat remat, View h,
                         std::span<Block::Saved> saved) const {
  EmbeddingForward(p.embed_tokens.value, batch.ids, h);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    std::construct_at(&saved[i], AllocateKept(ctx.saved, blocks_[i], ctx.compute, h.dim(0), remat));
    ForwardKeeping(ctx, {blocks_[i], p.layers[i], {batch.layout, *rope_}, remat}, h, saved[i]);
  }
}

void Decoder::LearnIndexers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options,
                            DecoderParams& grads) const {
  ArenaScope scope(ctx.scratch);
  const View h = ctx.scratch.Alloc(DType::kF32, {std::ssize(batch.ids), config_.hidden_size});
  const LayerTerms terms(ctx, batch.layout, *rope_, options);
  Forward(ctx, p, batch.ids, batch.layout, h, [&](int64_t layer, ConstView, const Block::Saved& saved) {
    if (layer < 0) return;
    const auto i = static_cast<size_t>(layer);
    terms.Apply(ctx, blocks_[i], p.layers[i], layer, saved, grads.layers[i]);
  });
  if (options.mtp.modules > 0) mtp_.LearnIndexers(ctx, p, {batch, *rope_, options.mtp, h}, terms, grads);
}

LossSums Decoder::ForwardBackward(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                                  DecoderParams& grads) const {
  if (!options.lm_loss) {
    if (options.indexer.factor > 0) LearnIndexers(ctx, p, batch, options, grads);
    return {};
  }
  ArenaScope keep(ctx.saved);
  ArenaScope scope(ctx.scratch);
  const int64_t tokens = static_cast<int64_t>(batch.ids.size());
  const View h = ctx.saved.Alloc(DType::kF32, {tokens, config_.hidden_size});
  const std::span<Block::Saved> saved = ctx.saved.AllocSpan<Block::Saved>(std::ssize(blocks_));
  KeepLayers(ctx, p, batch, remat, h, saved);

  const HeadParams head{p.norm, p.lm_head};
  const HeadGrads head_grads{grads.norm, grads.lm_head};
  const View dh = ctx.scratch.Alloc(DType::kF32, h.shape());
  LossSums sums;
  {
    ArenaScope inner(ctx.scratch);
    const View x = ctx.scratch.Alloc(ctx.compute, h.shape()), rstd = ctx.scratch.Alloc(DType::kF32, {tokens});
    head_.Normalize(ctx, head, h, x, rstd);
    sums.main = head_.LossAndGradient(ctx, head, x, {batch.targets, batch.weights, options.z_loss, options.scale}, dh, head_grads);
    head_.BackwardNorm(ctx, head, dh, {h, rstd}, dh, false, head_grads);
  }
  const LayerTerms terms(ctx, batch.layout, *rope_, options);
  if (options.mtp.modules > 0) sums.mtp = mtp_.ForwardBackward(ctx, p, {batch, *rope_, options.mtp, h}, terms, remat, dh, grads);
  for (size_t i = blocks_.size(); i-- > 0;) {
    const LayerPass pass{blocks_[i], p.layers[i], {batch.layout, *rope_}, remat};
    BackwardKept(ctx, pass, saved[i], terms, static_cast<int64_t>(i), dh, grads.layers[i]);
  }
  if (!grads.embed_tokens.value.empty()) EmbeddingBackward(dh, batch.ids, grads.embed_tokens.value.mutable_view());
  return sums;
}

LossSums Decoder::Loss(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, std::span<float> nll) const {
  ArenaScope scope(ctx.scratch);
  const int64_t tokens = static_cast<int64_t>(batch.ids.size());
  const View h = ctx.scratch.Alloc(DType::kF32, {tokens, config_.hidden_size});
  Forward(ctx, p, batch.ids, batch.layout, h);
  const HeadParams head{p.norm, p.lm_head};
  const View x = ctx.scratch.Alloc(ctx.compute, h.shape());
  head_.Normalize(ctx, head, h, x, {});
  LossSums sums;
  sums.main = head_.Loss(ctx, head, x, {batch.targets, batch.weights, options.z_loss, options.scale}, nll);
  if (options.mtp.eval_module > 0) {
    const std::span<int32_t> best = ctx.scratch.AllocSpan<int32_t>(tokens);
    head_.Predict(ctx, head, x, best);
    mtp_.Compare(ctx, p, {batch, *rope_, options.mtp, h}, best, sums);
  }
  return sums;
}

void Decoder::MtpLogits(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, MtpInput input, int64_t module, View logits) const {
  ArenaScope scope(ctx.scratch);
  const View h = ctx.scratch.Alloc(DType::kF32, {static_cast<int64_t>(batch.ids.size()), config_.hidden_size});
  Forward(ctx, p, batch.ids, batch.layout, h);
  mtp_.Logits(ctx, p, {batch, *rope_, {.modules = module, .input = input}, h}, logits);
}

CachedRows Decoder::RowsOf(Ctx& ctx, std::span<const CachedSegment> segments, int64_t m) const {
  const std::span<int32_t> positions = ctx.scratch.AllocSpan<int32_t>(m);
  const std::span<int64_t> visible = ctx.scratch.AllocSpan<int64_t>(m);
  const std::span<BlockTable> tables = ctx.scratch.AllocSpan<BlockTable>(m);
  int64_t row = 0;
  for (const CachedSegment& s : segments) {
    FATHOM_CHECK(s.begin == row && s.begin < s.end && s.end <= m && s.length() <= rope_->length() &&
                     s.length() <= std::ssize(s.blocks) * kCacheBlock,
                 "rows {}..{} after {} tokens in {} blocks", s.begin, s.end, s.past, s.blocks.size());
    for (; row < s.end; ++row) {
      const auto at = static_cast<size_t>(row);
      positions[at] = static_cast<int32_t>(s.past + row - s.begin);
      visible[at] = s.past + row - s.begin + 1;
      tables[at] = s.blocks;
    }
  }
  FATHOM_CHECK(row == m, "{} rows of {}", row, m);
  return {segments, positions, visible, tables};
}

void Decoder::Decode(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, std::span<const CachedSegment> segments,
                     CachePool& pool, View h) const {
  ArenaScope scope(ctx.scratch);
  const CachedRows rows = RowsOf(ctx, segments, h.dim(0));
  EmbeddingForward(p.embed_tokens.value, ids, h);
  for (size_t i = 0; i < blocks_.size(); ++i)
    blocks_[i].ForwardCached(ctx, p.layers[i], {rows, *rope_, pool.layer(static_cast<int64_t>(i))}, h);
}

void Decoder::Logits(Ctx& ctx, const DecoderParams& p, ConstView h, View logits) const {
  head_.StreamLogits(ctx, {p.norm, p.lm_head}, h, logits);
}

void Decoder::DraftState(Ctx& ctx, const DecoderParams& p, MtpInput input, ConstView hidden, View state) const {
  ArenaScope scope(ctx.scratch);
  Cast(mtp_.State(ctx, {p.norm, p.lm_head}, input, hidden), state);
}

void Decoder::Draft(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, ConstView state,
                    std::span<const CachedSegment> segments, CachePool& pool, View h) const {
  ArenaScope scope(ctx.scratch);
  const CachedRows rows = RowsOf(ctx, segments, h.dim(0));
  mtp_.module(0).ForwardCached(ctx, p.mtp[0], ids, {rows, *rope_, pool.layer(config_.num_hidden_layers)}, state, h);
}

void Decoder::DraftLogits(Ctx& ctx, const DecoderParams& p, MtpInput input, ConstView h, View logits, View next_state) const {
  ArenaScope scope(ctx.scratch);
  const HeadParams head = HeadOf(p.mtp[0]);
  head_.StreamLogits(ctx, head, h, logits);
  Cast(mtp_.State(ctx, head, input, h), next_state);
}

}  // namespace fathom

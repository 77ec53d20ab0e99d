#include "fathom/model/decoder.h"

#include <algorithm>
#include <memory>

#include "fathom/base/trace.h"
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
  const Stage stage = StageOf(ctx);
  Enter(ctx, p, ids, h);
  if (observer) observer(-1, h, {});
  for (size_t i = stage.begin; i < stage.end; ++i) {
    const TraceSlice slice = TraceSlice::OfLayer(static_cast<int64_t>(i));
    ArenaScope scope(ctx.scratch);
    const LayerScope weights(p, static_cast<int64_t>(i));
    Block::Saved saved = blocks_[i].Allocate(ctx.scratch, ctx.compute, h.dim(0), false, ctx.groups);
    blocks_[i].Forward(ctx, p.layers[i], {layout, *rope_}, h, saved);
    if (observer) observer(static_cast<int64_t>(i), h, saved);
  }
  Leave(ctx, h);
}

void Decoder::ForwardLayer(Ctx& ctx, const DecoderParams& p, int64_t layer, const TokenLayout& layout, View h, Block::Saved& saved) const {
  block(layer).Forward(ctx, p.layers[static_cast<size_t>(layer)], {layout, *rope_}, h, saved);
}

void Decoder::IndexerScores(Ctx& ctx, const DecoderParams& p, int64_t layer, const TokenLayout& layout, const Block::Saved& saved,
                            int64_t query, std::span<float> scores) const {
  block(layer).IndexerScores(ctx, p.layers[static_cast<size_t>(layer)], {layout, *rope_}, saved, query, scores);
}

Decoder::Stage Decoder::StageOf(const Ctx& ctx) const {
  const int64_t layers = std::ssize(blocks_), stage = ctx.groups.stage.rank(), stages = ctx.groups.stage.size();
  return {static_cast<size_t>(FirstLayer(layers, stage, stages)), static_cast<size_t>(FirstLayer(layers, stage + 1, stages)), stage == 0,
          stage + 1 == stages};
}

void Decoder::Enter(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, View h) const {
  const TraceSlice slice("embedding");
  if (StageOf(ctx).first) return EmbeddingForward(p.embed_tokens.value, ids, h);
  ctx.groups.stage.Receive(ctx.groups.stage.rank() - 1, BytesOf(h));
}

void Decoder::Leave(Ctx& ctx, View h) const {
  if (!StageOf(ctx).last) ctx.groups.stage.Send(ctx.groups.stage.rank() + 1, BytesOf(h));
}

Decoder::Kept Decoder::KeepLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, Remat remat) const {
  const TraceSlice slice("forward");
  const Stage stage = StageOf(ctx);
  const View h = ctx.saved.Alloc(DType::kF32, {std::ssize(batch.ids), config_.hidden_size});
  const std::span<Block::Saved> saved = ctx.saved.AllocSpan<Block::Saved>(std::ssize(blocks_));
  Enter(ctx, p, batch.ids, h);
  for (size_t i = stage.begin; i < stage.end; ++i) {
    const TraceSlice of_layer = TraceSlice::OfLayer(static_cast<int64_t>(i));
    const LayerScope weights(p, static_cast<int64_t>(i));
    std::construct_at(&saved[i], AllocateKept(ctx.saved, blocks_[i], ctx.compute, h.dim(0), remat, ctx.groups));
    ForwardKeeping(ctx, {blocks_[i], p.layers[i], {batch.layout, *rope_}, remat}, h, saved[i]);
  }
  Leave(ctx, h);
  return {h, saved};
}

void Decoder::LearnIndexers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options,
                            DecoderParams& grads) const {
  ArenaScope scope(ctx.scratch);
  const View h = ctx.scratch.Alloc(DType::kF32, {std::ssize(batch.ids), config_.hidden_size});
  const LayerTerms terms(ctx, batch.layout, *rope_, options);
  Forward(ctx, p, batch.ids, batch.layout, h, [&](int64_t layer, ConstView, const Block::Saved& saved) {
    if (layer < 0) return;
    const auto i = static_cast<size_t>(layer);
    const LayerScope gradients(grads, layer);
    terms.Apply(ctx, blocks_[i], p.layers[i], layer, saved, grads.layers[i]);
  });
  if (options.mtp.modules > 0 && StageOf(ctx).last) mtp_.LearnIndexers(ctx, p, {batch, *rope_, options.mtp, h}, terms, grads);
}

// The losses' gradient on the stream after the last layer: overwrites dh.
LossSums Decoder::BackwardHead(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                               const LayerTerms& terms, View h, View dh, DecoderParams& grads) const {
  const HeadParams head{p.norm, p.lm_head};
  const HeadGrads head_grads{grads.norm, grads.lm_head};
  LossSums sums;
  {
    const TraceSlice slice("head and loss");
    ArenaScope inner(ctx.scratch);
    const View x = ctx.scratch.Alloc(ctx.compute, h.shape()), rstd = ctx.scratch.Alloc(DType::kF32, {h.dim(0)});
    head_.Normalize(ctx, head, h, x, rstd);
    sums.main = head_.LossAndGradient(ctx, head, x, {batch.targets, batch.weights, options.z_loss, options.scale}, dh, head_grads);
    head_.BackwardNorm(ctx, head, dh, {h, rstd}, dh, false, head_grads);
  }
  if (options.mtp.modules == 0) return sums;
  const TraceSlice slice("MTP modules");
  sums.mtp = mtp_.ForwardBackward(ctx, p, {batch, *rope_, options.mtp, h}, terms, remat, dh, grads);
  return sums;
}

LossSums Decoder::BackwardLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                                 const Kept& kept, DecoderParams& grads) const {
  const TraceSlice slice("backward");
  ArenaScope scope(ctx.scratch);
  const Stage stage = StageOf(ctx);
  const View dh = ctx.scratch.Alloc(DType::kF32, kept.h.shape());
  const LayerTerms terms(ctx, batch.layout, *rope_, options);
  LossSums sums;
  if (stage.last) {
    sums = BackwardHead(ctx, p, batch, options, remat, terms, kept.h, dh, grads);
  } else {
    ctx.groups.stage.Receive(ctx.groups.stage.rank() + 1, BytesOf(dh));
  }
  for (size_t i = stage.end; i-- > stage.begin;) {
    const TraceSlice of_layer = TraceSlice::OfLayer(static_cast<int64_t>(i));
    const LayerScope weights(p, static_cast<int64_t>(i)), gradients(grads, static_cast<int64_t>(i));
    const LayerPass pass{blocks_[i], p.layers[i], {batch.layout, *rope_}, remat};
    BackwardKept(ctx, pass, kept.blocks[i], terms, static_cast<int64_t>(i), dh, grads.layers[i]);
  }
  if (!stage.first) {
    ctx.groups.stage.Send(ctx.groups.stage.rank() - 1, BytesOf(dh));
  } else if (!grads.embed_tokens.value.empty()) {
    const TraceSlice of_embedding("embedding's gradient");
    EmbeddingBackward(dh, batch.ids, grads.embed_tokens.value.mutable_view());
  }
  return sums;
}

LossSums Decoder::ForwardBackward(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                                  DecoderParams& grads) const {
  return ForwardBackward(ctx, p, std::span(&batch, 1), options, remat, grads);
}

LossSums Decoder::ForwardBackward(Ctx& ctx, const DecoderParams& p, std::span<const TokenBatch> batches, const LossOptions& options,
                                  Remat remat, DecoderParams& grads) const {
  if (!options.lm_loss) {
    for (const TokenBatch& batch : batches) {
      if (options.indexer.factor > 0) LearnIndexers(ctx, p, batch, options, grads);
    }
    return {};
  }
  ArenaScope keep(ctx.saved);
  const std::span<Kept> kept = ctx.saved.AllocSpan<Kept>(std::ssize(batches));
  for (size_t i = 0; i < batches.size(); ++i) std::construct_at(&kept[i], KeepLayers(ctx, p, batches[i], remat));
  LossSums sums;
  for (size_t i = batches.size(); i-- > 0;) sums += BackwardLayers(ctx, p, batches[i], options, remat, kept[i], grads);
  return sums;
}

LossSums Decoder::Loss(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, std::span<float> nll) const {
  ArenaScope scope(ctx.scratch);
  const int64_t tokens = static_cast<int64_t>(batch.ids.size());
  const View h = ctx.scratch.Alloc(DType::kF32, {tokens, config_.hidden_size});
  Forward(ctx, p, batch.ids, batch.layout, h);
  LossSums sums;
  if (!StageOf(ctx).last) return sums;
  const HeadParams head{p.norm, p.lm_head};
  const View x = ctx.scratch.Alloc(ctx.compute, h.shape());
  head_.Normalize(ctx, head, h, x, {});
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
                     CachePool& pool, View h, FunctionRef<void()> before_layer) const {
  ArenaScope scope(ctx.scratch);
  const CachedRows rows = RowsOf(ctx, segments, h.dim(0));
  EmbeddingForward(p.embed_tokens.value, ids, h);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (before_layer) before_layer();
    const TraceSlice slice = TraceSlice::OfLayer(static_cast<int64_t>(i));
    blocks_[i].ForwardCached(ctx, p.layers[i], {rows, *rope_, pool.layer(static_cast<int64_t>(i))}, h);
  }
}

void Decoder::Logits(Ctx& ctx, const DecoderParams& p, ConstView h, View logits) const {
  const TraceSlice slice("head");
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

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

Decoder::Kept Decoder::AllocateLayers(Ctx& ctx, int64_t tokens, Remat remat) const {
  const Stage stage = StageOf(ctx);
  const Kept kept{ctx.saved.Alloc(DType::kF32, {tokens, config_.hidden_size}), ctx.saved.AllocSpan<Block::Saved>(std::ssize(blocks_))};
  for (size_t i = stage.begin; i < stage.end; ++i)
    std::construct_at(&kept.blocks[i], AllocateKept(ctx.saved, blocks_[i], ctx.compute, tokens, remat, ctx.groups));
  return kept;
}

void Decoder::KeepLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, Remat remat, const Kept& kept) const {
  Pulse::At(Activity::kForward);
  const TraceSlice slice("forward");
  const Stage stage = StageOf(ctx);
  if (stage.first) {
    const TraceSlice of_embedding("embedding");
    EmbeddingForward(p.embed_tokens.value, batch.ids, kept.h);
  }
  for (size_t i = stage.begin; i < stage.end; ++i) {
    const TraceSlice of_layer = TraceSlice::OfLayer(static_cast<int64_t>(i));
    const LayerScope weights(p, static_cast<int64_t>(i));
    ForwardKeeping(ctx, {blocks_[i], p.layers[i], {batch.layout, *rope_}, remat}, kept.h, kept.blocks[i]);
  }
}

void Decoder::LearnIndexers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options,
                            DecoderParams& grads) const {
  ArenaScope scope(ctx.scratch);
  const View h = ctx.scratch.Alloc(DType::kF32, {std::ssize(batch.ids), config_.hidden_size});
  const LayerTerms terms(ctx, batch, *rope_, options);
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
                                 const Kept& kept, View dh, DecoderParams& grads) const {
  Pulse::At(Activity::kBackward);
  const TraceSlice slice("backward");
  ArenaScope scope(ctx.scratch);
  const Stage stage = StageOf(ctx);
  const LayerTerms terms(ctx, batch, *rope_, options);
  LossSums sums;
  if (stage.last) sums = BackwardHead(ctx, p, batch, options, remat, terms, kept.h, dh, grads);
  for (size_t i = stage.end; i-- > stage.begin;) {
    const TraceSlice of_layer = TraceSlice::OfLayer(static_cast<int64_t>(i));
    const LayerScope weights(p, static_cast<int64_t>(i)), gradients(grads, static_cast<int64_t>(i));
    const LayerPass pass{blocks_[i], p.layers[i], {batch.layout, *rope_}, remat};
    BackwardKept(ctx, pass, kept.blocks[i], terms, static_cast<int64_t>(i), dh, grads.layers[i]);
  }
  if (stage.first && !grads.embed_tokens.value.empty()) {
    const TraceSlice of_embedding("embedding's gradient");
    EmbeddingBackward(dh, batch.ids, grads.embed_tokens.value.mutable_view());
  }
  return sums;
}

// "One forward, one backward": a rank runs as many micro-batches forwards as there are ranks behind it, then the oldest backwards after
// each further one. Neighbours that both send do so in one exchange.
struct Decoder::PipelinePass {
  const Decoder& decoder;
  Ctx& ctx;
  const DecoderParams& p;
  std::span<const TokenBatch> batches;
  const LossOptions& options;
  Remat remat;
  DecoderParams& grads;
  Stage stage = decoder.StageOf(ctx);
  size_t ahead = std::min(static_cast<size_t>(ctx.groups.stage.size() - 1 - ctx.groups.stage.rank()), batches.size());
  std::span<Kept> slots = {};          // of micro-batch i: slot i % slots.size()
  std::span<Block::Saved> fresh = {};  // what was allocated in them, which a forward may have narrowed
  View dh = {};
  LossSums sums = {};

  LossSums Run() {
    ArenaScope keep(ctx.saved), scope(ctx.scratch);
    Allocate();
    for (size_t i = 0; i < ahead; ++i) {
      Exchange(-1, {}, Stream(i));
      Forward(i);
      Exchange(+1, Stream(i), {});
    }
    if (ahead < batches.size()) Exchange(-1, {}, Stream(ahead));
    for (size_t i = ahead; i < batches.size(); ++i) {
      Forward(i);
      Exchange(+1, Stream(i), dh);
      Backward(i - ahead);
      Exchange(-1, dh, i + 1 < batches.size() ? Stream(i + 1) : View());
    }
    for (size_t i = batches.size() - ahead; i < batches.size(); ++i) {
      Exchange(+1, {}, dh);
      Backward(i);
      Exchange(-1, dh, {});
    }
    return sums;
  }

  void Allocate() {
    const int64_t tokens = std::ssize(batches[0].ids), blocks = std::ssize(decoder.blocks_);
    slots = ctx.saved.AllocSpan<Kept>(static_cast<int64_t>(std::min(ahead + 1, batches.size())));
    fresh = ctx.saved.AllocSpan<Block::Saved>(std::ssize(slots) * blocks);
    for (size_t i = 0; i < slots.size(); ++i) {
      std::construct_at(&slots[i], decoder.AllocateLayers(ctx, tokens, remat));
      std::uninitialized_copy(slots[i].blocks.begin(), slots[i].blocks.end(), fresh.begin() + static_cast<ptrdiff_t>(i) * blocks);
    }
    dh = ctx.scratch.Alloc(DType::kF32, {tokens, decoder.config_.hidden_size});
  }
  Kept& Slot(size_t i) const { return slots[i % slots.size()]; }
  View Stream(size_t i) const { return Slot(i).h; }

  // With the rank before or behind, if there is one; empty: nothing that way.
  void Exchange(int way, ConstView out, View in) const {
    if (way < 0 ? stage.first : stage.last) return;
    const int other = ctx.groups.stage.rank() + way;
    const Outgoing to{other, out.empty() ? std::span<const std::byte>() : BytesOf(out)};
    const Incoming from{other, in.empty() ? std::span<std::byte>() : BytesOf(in)};
    ctx.groups.stage.Exchange({&to, out.empty() ? size_t{0} : 1}, {&from, in.empty() ? size_t{0} : 1});
  }

  void Forward(size_t i) const {
    const Kept& kept = Slot(i);
    std::copy_n(fresh.begin() + static_cast<ptrdiff_t>(i % slots.size() * kept.blocks.size()), kept.blocks.size(), kept.blocks.begin());
    decoder.KeepLayers(ctx, p, batches[i], remat, kept);
  }

  void Backward(size_t i) { sums += decoder.BackwardLayers(ctx, p, batches[i], options, remat, Slot(i), dh, grads); }
};

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
  return PipelinePass{*this, ctx, p, batches, options, remat, grads}.Run();
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

#include "fathom/model/decoder.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "fathom/kernels/elementwise/embedding.h"

namespace fathom {

Decoder::Decoder(const ModelConfig& config, const LayerOptions& options)
    : config_(config), head_(config.vocab_size, static_cast<float>(config.rms_norm_eps)), mtp_(config, options) {
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) blocks_.emplace_back(config, config.is_moe_layer(i), options);
  EnsurePositions(1);
}

void Decoder::EnsurePositions(int64_t length) {
  if (rope_ == nullptr || rope_->length() < length) rope_ = std::make_shared<const RopeTable>(config_, length);
}

void Decoder::Forward(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, const TokenLayout& layout, View h,
                      const LayerObserver& observer) const {
  EmbeddingForward(p.embed_tokens.value, ids, h);
  if (observer) observer(-1, h, {});
  for (size_t i = 0; i < blocks_.size(); ++i) {
    ArenaScope scope(ctx.scratch);
    Block::Saved saved = blocks_[i].Allocate(ctx.scratch, ctx.compute, h.dim(0), false);
    blocks_[i].Forward(ctx, p.layers[i], layout, *rope_, h, saved);
    if (observer) observer(static_cast<int64_t>(i), h, saved);
  }
}

void Decoder::KeepLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, Remat remat, View h,
                         std::span<Block::Saved> saved) const {
  EmbeddingForward(p.embed_tokens.value, batch.ids, h);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    std::construct_at(&saved[i], AllocateKept(ctx.saved, blocks_[i], ctx.compute, h.dim(0), remat));
    ForwardKeeping(ctx, blocks_[i], p.layers[i], batch.layout, *rope_, remat, h, saved[i]);
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
  if (options.mtp.modules > 0) mtp_.LearnIndexers(ctx, p, batch, *rope_, terms, options.mtp, h, grads);
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
    head_.BackwardNorm(ctx, head, dh, h, rstd, dh, false, head_grads);
  }
  const LayerTerms terms(ctx, batch.layout, *rope_, options);
  if (options.mtp.modules > 0) sums.mtp = mtp_.ForwardBackward(ctx, p, batch, *rope_, terms, options.mtp, remat, h, dh, grads);
  for (size_t i = blocks_.size(); i-- > 0;) {
    BackwardKept(ctx, blocks_[i], p.layers[i], batch.layout, *rope_, remat, saved[i], terms, static_cast<int64_t>(i), dh, grads.layers[i]);
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
    mtp_.Compare(ctx, p, batch, *rope_, options.mtp, h, best, sums);
  }
  return sums;
}

void Decoder::MtpLogits(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, MtpInput input, int64_t module, View logits) const {
  ArenaScope scope(ctx.scratch);
  const View h = ctx.scratch.Alloc(DType::kF32, {static_cast<int64_t>(batch.ids.size()), config_.hidden_size});
  Forward(ctx, p, batch.ids, batch.layout, h);
  mtp_.Logits(ctx, p, batch, *rope_, input, module, h, logits);
}

std::span<const int32_t> Decoder::NextPositions(Ctx& ctx, int64_t past, int64_t m, const KvCache& cache) const {
  FATHOM_CHECK(past + m <= cache.capacity && past + m <= rope_->length(), "{} tokens after {} in a cache of {}", m, past, cache.capacity);
  const std::span<int32_t> positions = ctx.scratch.AllocSpan<int32_t>(m);
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(past));
  return positions;
}

void Decoder::Decode(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, KvCache& cache, View logits, View hidden) const {
  ArenaScope scope(ctx.scratch);
  const int64_t m = static_cast<int64_t>(ids.size()), past = cache.length;
  const std::span<const int32_t> positions = NextPositions(ctx, past, m, cache);
  const View h = hidden.empty() ? ctx.scratch.Alloc(DType::kF32, {m, config_.hidden_size}) : hidden;
  EmbeddingForward(p.embed_tokens.value, ids, h);
  for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i].ForwardCached(ctx, p.layers[i], positions, *rope_, past, h, cache.layers[i]);
  cache.length = past + m;
  if (logits.empty()) return;
  head_.StreamLogits(ctx, {p.norm, p.lm_head}, h.Rows(m - logits.dim(0), m), logits);
}

void Decoder::DraftState(Ctx& ctx, const DecoderParams& p, MtpInput input, ConstView hidden, View state) const {
  ArenaScope scope(ctx.scratch);
  Cast(mtp_.State(ctx, {p.norm, p.lm_head}, input, hidden), state);
}

void Decoder::Draft(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, ConstView state, int64_t past, MtpInput input,
                    KvCache& cache, View logits, View next_state) const {
  ArenaScope scope(ctx.scratch);
  const int64_t m = static_cast<int64_t>(ids.size());
  const std::span<const int32_t> positions = NextPositions(ctx, past, m, cache);
  const View h = ctx.scratch.Alloc(DType::kF32, state.shape());
  mtp_.module(0).ForwardCached(ctx, p.mtp[0], ids, positions, *rope_, past, state, h,
                               cache.layers[static_cast<size_t>(config_.num_hidden_layers)]);
  if (logits.empty()) return;
  const HeadParams head = HeadOf(p.mtp[0]);
  const ConstView last = h.Rows(m - 1, m);
  head_.StreamLogits(ctx, head, last, logits);
  Cast(mtp_.State(ctx, head, input, last), next_state);
}

}  // namespace fathom

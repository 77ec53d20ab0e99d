// The decoder: embedding, layers, head; the order of forward and backward, and what is kept in between.
#pragma once

#include <memory>
#include <vector>

#include "fathom/base/function_ref.h"
#include "fathom/model/mtp_chain.h"

namespace fathom {

// Called after the embedding (layer -1) and after each layer with the residual stream [T,D] F32; for checks.
using LayerObserver = FunctionRef<void(int64_t layer, ConstView h, const Block::Saved& saved)>;

class Decoder {
 public:
  explicit Decoder(const ModelConfig& config, const LayerOptions& options = {});
  const ModelConfig& config() const { return config_; }
  const Head& head() const { return head_; }
  // Longest position that can be asked for; grows the RoPE table. Call before the first step.
  void EnsurePositions(int64_t length);

  // h [T,D] F32 is overwritten with the residual stream after the last layer; nothing is kept.
  void Forward(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, const TokenLayout& layout, View h,
               const LayerObserver& observer = {}) const;

  // One layer of that: h is updated in place, saved (block(layer).Allocate) is filled.
  void ForwardLayer(Ctx& ctx, const DecoderParams& p, int64_t layer, const TokenLayout& layout, View h, Block::Saved& saved) const;
  // The scores by which an indexer chose, see Mla::IndexerScores; saved is the layer's.
  void IndexerScores(Ctx& ctx, const DecoderParams& p, int64_t layer, const TokenLayout& layout, const Block::Saved& saved, int64_t query,
                     std::span<float> scores) const;
  const Block& block(int64_t layer) const { return blocks_[static_cast<size_t>(layer)]; }

  // Loss and gradients of one micro-batch; adds to grads (empty gradients are not computed). options.mtp.modules of the MTP modules take
  // part.
  LossSums ForwardBackward(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                           DecoderParams& grads) const;
  // Of several micro-batches of as many tokens, where ranks share the layers (ctx.groups.stage): each is handed on to the next rank and
  // back, one forwards and one backwards in turn, so that a rank keeps no more of them than there are ranks behind it, and one. The last
  // rank has the sums.
  LossSums ForwardBackward(Ctx& ctx, const DecoderParams& p, std::span<const TokenBatch> batches, const LossOptions& options, Remat remat,
                           DecoderParams& grads) const;
  // Loss of the main model alone, and the acceptance of options.mtp.eval_module; nll [T], unless empty, gets each token's.
  LossSums Loss(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, std::span<float> nll) const;

  // Logits [T,V] F32 of MTP module `module`, from 1, overwritten: at position t for token t + module + 1 of the document; for checks.
  void MtpLogits(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, MtpInput input, int64_t module, View logits) const;

  // The next tokens [M] of several sequences in one pass: segments say whose rows lie where. Their keys are written to the pool, in blocks
  // that the sequences own; h [M,D] F32 is overwritten with the residual stream after the last layer. before_layer may throw.
  void Decode(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, std::span<const CachedSegment> segments, CachePool& pool,
              View h, FunctionRef<void()> before_layer = {}) const;
  // Logits [M,V] F32 after rows of that stream; overwritten.
  void Logits(Ctx& ctx, const DecoderParams& p, ConstView h, View logits) const;

  // Drafting with MTP module 1, whose layer of the pool is num_hidden_layers: row t of a sequence joins the main model's state at position
  // t with token t+1. ids [M] are those tokens, state [M,D] F32 what DraftState made there; h [M,D] F32 is overwritten with the module's
  // stream.
  void Draft(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, ConstView state, std::span<const CachedSegment> segments,
             CachePool& pool, View h) const;
  // From rows of the module's stream: logits [M,V] F32 of the drafts, and the states [M,D] F32 of the drafts chained to them.
  void DraftLogits(Ctx& ctx, const DecoderParams& p, MtpInput input, ConstView h, View logits, View next_state) const;
  // The state [M,D] F32 that module 1 is fed where the residual stream after the last layer is hidden; overwritten.
  void DraftState(Ctx& ctx, const DecoderParams& p, MtpInput input, ConstView hidden, View state) const;

 private:
  // In scratch; checks that the segments are the pass's m rows and have positions.
  CachedRows RowsOf(Ctx& ctx, std::span<const CachedSegment> segments, int64_t m) const;
  // The blocks of this rank, and its neighbours.
  struct Stage {
    size_t begin, end;
    bool first, last;
  };
  Stage StageOf(const Ctx& ctx) const;
  // The stream that comes in to this rank's blocks, and the one that goes out.
  void Enter(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, View h) const;
  void Leave(Ctx& ctx, View h) const;
  struct PipelinePass;
  // What is kept of a micro-batch: the stream after the blocks, and what they need.
  struct Kept {
    View h;
    std::span<Block::Saved> blocks;
  };
  Kept AllocateLayers(Ctx& ctx, int64_t tokens, Remat remat) const;
  // kept.h holds what comes in, or on the first rank gets the embedding; then what goes out.
  void KeepLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, Remat remat, const Kept& kept) const;
  // dh: the gradient of what went out, on the last rank overwritten by that of the losses; then of what came in.
  LossSums BackwardLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                          const Kept& kept, View dh, DecoderParams& grads) const;
  LossSums BackwardHead(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                        const LayerTerms& terms, View h, View dh, DecoderParams& grads) const;
  // The dense warm-up: indexers need no gradient from above, so each learns on the way forward and nothing is kept.
  void LearnIndexers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, DecoderParams& grads) const;

  ModelConfig config_;
  LayerFaults faults_;
  Head head_;
  std::vector<Block> blocks_;
  MtpChain mtp_;
  std::shared_ptr<const RopeTable> rope_;
};

}  // namespace fathom

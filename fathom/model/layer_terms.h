// The losses and counts that belong to single layers: what an indexer learns, what keeps experts equally busy. Computed in the layer's
// backward, when everything it kept is at hand.
#pragma once

#include "fathom/layers/block.h"
#include "fathom/model/token_batch.h"

namespace fathom {

class LayerTerms {
 public:
  // batch, rope and options outlive it. Scratch of ctx holds a mask of the batch's documents.
  LayerTerms(Ctx& ctx, const TokenBatch& batch, const RopeTable& rope, const LossOptions& options);

  // Layer `layer` (main ones, then MTP modules): adds to options.totals and to the indexer's gradients in grad; returns the gradient of the
  // balance loss on the router's scores [T,E] F32 in scratch, or nothing.
  ConstView Apply(Ctx& ctx, const Block& block, const BlockParams& p, int64_t layer, const Block::Saved& saved, BlockParams& grad) const;

 private:
  void LearnIndexer(Ctx& ctx, const Block& block, const BlockParams& p, int64_t layer, const Block::Saved& saved, BlockParams& grad) const;
  void RaiseMaxLogits(int64_t layer, std::span<const float> max_logits) const;
  void CountExperts(const Moe& moe, int64_t layer, const Moe::Saved& saved) const;
  ConstView Balance(Ctx& ctx, const Moe& moe, int64_t layer, const Moe::Saved& saved) const;

  const TokenLayout &layout_, &whole_;  // of this rank's tokens; of all tokens of its sequences
  const RopeTable& rope_;
  const LossOptions& options_;
  std::span<const float> in_document_;        // [T] 1 or 0; empty: padding counts
  std::span<const float> whole_in_document_;  // the same of whole_
};

}  // namespace fathom

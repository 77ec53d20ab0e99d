// The decoder: embedding, layers, head; the order of forward and backward, and what is kept in between.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "fathom/layers/head.h"
#include "fathom/model/params.h"

namespace fathom {

// Sequences of one step, one after the other.
struct TokenBatch {
  std::span<const int32_t> ids;      // [T]
  std::span<const int32_t> targets;  // [T]
  std::span<const float> weights;    // [T] of the targets; 0: not counted
  TokenLayout layout;
};

// Called after the embedding (layer -1) and after each layer with the residual stream [T,D] F32; for checks.
using LayerObserver = std::function<void(int64_t layer, ConstView h, const Block::Saved& saved)>;

// How a step trains the indexers of V3.2 (report, continued pre-training). Their gradients are those of factor times the sum of the
// layers' losses.
struct IndexerTraining {
  float factor = 0;              // 0: they are not trained
  bool sparse = false;           // KL over the chosen keys; false: over all visible ones
  bool dense_attention = false;  // the main attention sees every key
};

struct LossOptions {
  float z_loss = 0;
  float scale = 1;      // factor on the gradient of the cross entropy
  bool lm_loss = true;  // false: no head, no loss of the language model; the indexers alone are trained
  IndexerTraining indexer;
  std::span<double> indexer_loss;  // [num_hidden_layers], unless empty: each layer's KL, summed over tokens, is added
};

struct LossSums {
  CrossEntropySums main;
  LossSums& operator+=(const LossSums& other);
};

class Decoder {
 public:
  explicit Decoder(const ModelConfig& config);
  const ModelConfig& config() const { return config_; }
  const Head& head() const { return head_; }
  // Longest position that can be asked for; grows the RoPE table. Call before the first step.
  void EnsurePositions(int64_t length);

  // h [T,D] F32 is overwritten with the residual stream after the last layer; nothing is kept.
  void Forward(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, const TokenLayout& layout, View h,
               const LayerObserver& observer = {}) const;

  // Loss and gradients of one micro-batch; adds to grads (empty gradients are not computed).
  LossSums ForwardBackward(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                           DecoderParams& grads) const;
  // Loss alone; nll [T], unless empty, gets each token's.
  LossSums Loss(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, std::span<float> nll) const;

  // The next tokens of one sequence: appends to the cache; logits of the last `last` tokens [last,V] F32 are overwritten.
  // hidden [M,D] F32, unless empty, gets the residual stream after the last layer.
  void Decode(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, KvCache& cache, View logits, View hidden) const;

  // Bytes that ForwardBackward keeps between forward and backward, and needs besides.
  int64_t SavedBytes(DType compute, int64_t tokens, Remat remat) const;
  int64_t ScratchBytes(DType compute, int64_t tokens) const;

 private:
  void ForwardKeeping(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, Remat remat, View h,
                      std::vector<Block::Saved>& saved) const;
  void BackwardLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat,
                      const std::vector<Block::Saved>& saved, View dh, DecoderParams& grads) const;
  // The dense warm-up: indexers need no gradient from above, so each learns on the way forward and nothing is kept.
  void LearnIndexers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, DecoderParams& grads) const;
  void LearnIndexer(Ctx& ctx, const DecoderParams& p, const TokenLayout& layout, const LossOptions& options, size_t layer,
                    const Block::Saved& saved, DecoderParams& grads) const;
  Block::Saved Keep(Arena& arena, const Block& block, DType compute, int64_t tokens, Remat remat) const;

  ModelConfig config_;
  Head head_;
  std::vector<Block> blocks_;
  std::shared_ptr<const RopeTable> rope_;
};

}  // namespace fathom

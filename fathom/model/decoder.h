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

struct LossOptions {
  float z_loss = 0;
  float scale = 1;  // factor on the gradient
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
  // Longest position that can be asked for; grows the RoPE table. Call before the first step. Throws Error(kUsage) for a V3.2 model and more
  // than index_topk tokens: its sparse attention is not there.
  void EnsurePositions(int64_t length);

  // h [T,D] F32 is overwritten with the residual stream after the last layer; nothing is kept.
  void Forward(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, const TokenLayout& layout, View h, const LayerObserver& observer = {}) const;

  // Loss and gradients of one micro-batch; adds to grads (empty gradients are not computed).
  LossSums ForwardBackward(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, Remat remat, DecoderParams& grads) const;
  // Loss alone; nll [T], unless empty, gets each token's.
  LossSums Loss(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, const LossOptions& options, std::span<float> nll) const;

  // The next tokens of one sequence: appends to the cache; logits of the last `last` tokens [last,V] F32 are overwritten.
  // hidden [M,D] F32, unless empty, gets the residual stream after the last layer.
  void Decode(Ctx& ctx, const DecoderParams& p, std::span<const int32_t> ids, KvCache& cache, View logits, View hidden) const;

  // Bytes that ForwardBackward keeps between forward and backward, and needs besides.
  int64_t SavedBytes(DType compute, int64_t tokens, Remat remat) const;
  int64_t ScratchBytes(DType compute, int64_t tokens) const;

 private:
  void ForwardKeeping(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, Remat remat, View h, std::vector<Block::Saved>& saved) const;
  void BackwardLayers(Ctx& ctx, const DecoderParams& p, const TokenBatch& batch, Remat remat, const std::vector<Block::Saved>& saved, View dh,
                      DecoderParams& grads) const;
  Block::Saved Keep(Arena& arena, const Block& block, DType compute, int64_t tokens, Remat remat) const;

  ModelConfig config_;
  Head head_;
  std::vector<Block> blocks_;
  std::shared_ptr<const RopeTable> rope_;
};

}  // namespace fathom

// Whole sequences through a mapped checkpoint: for checks and for perplexity.
#pragma once

#include <span>
#include <vector>

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/model/decoder.h"
#include "fathom/model/sharding.h"

namespace fathom {

class ForwardModel {
 public:
  // adapter: a PEFT folder to put beside the weights; empty: none. On a mesh the rank maps its experts, and its heads and widths of the
  // others; all ranks along expert and tensor are given the same tokens.
  ForwardModel(const Checkpoint& checkpoint, DType compute, const LayerOptions& layers = {}, const std::filesystem::path& adapter = {},
               const Mesh& mesh = {});
  // The same weights, or fewer of them, under another config and other options.
  ForwardModel(DecoderParams params, const ModelConfig& config, DType compute, const LayerOptions& layers);
  // As this rank's layers see it.
  const ModelConfig& config() const { return decoder_.config(); }
  const DecoderParams& params() const { return params_; }
  const Decoder& decoder() const { return decoder_; }
  DType compute() const { return compute_; }

  // Logits [T,V] F32 of every token.
  Tensor Logits(std::span<const int32_t> ids, const TokenLayout& layout, const LayerObserver& observer = {});
  // The same for one sequence.
  Tensor Logits(std::span<const int32_t> ids);
  // Those of one sequence, as rows of doubles. Throws Error(kInput) for an id outside the vocabulary.
  std::vector<std::vector<double>> LogitRows(std::span<const int32_t> ids);
  // Sums of the loss of one batch.
  LossSums Loss(const TokenBatch& batch);

 private:
  Ctx Context() { return {.saved = saved_, .scratch = scratch_, .compute = compute_, .groups = groups_}; }

  Sharding sharding_;
  LayerGroups groups_;
  DecoderParams params_;
  Decoder decoder_;
  DType compute_;
  Arena saved_, scratch_;
};

}  // namespace fathom

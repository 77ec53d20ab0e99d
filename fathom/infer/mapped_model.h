// A checkpoint ready to decode: its config and its weights, mapped. Constant, so that all sequences share it.
#pragma once

#include <filesystem>

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/model/decoder.h"
#include "fathom/model/sharding.h"

namespace fathom {

// Whether and how tokens are drafted with the checkpoint's MTP module.
struct DraftOptions {
  bool enabled = false;
  MtpInput input = MtpInput::kAfterNorm;
  bool own_head = false;  // the module's copies of embedding and head instead of the main model's
};

class MappedModel {
 public:
  // capacity: the longest sequence, prompt and answer together. adapter: a PEFT folder to put beside the weights; empty: none.
  // Throws Error(kUsage) for a capacity beyond max_position_embeddings and, with drafts, for a checkpoint without an MTP module,
  // Error(kInput) for an adapter that does not fit.
  // On a mesh the rank maps its experts, and its heads and widths of the others; all ranks see every token.
  MappedModel(Checkpoint checkpoint, DType compute, int64_t capacity, const DraftOptions& drafts = {}, const LayerOptions& layers = {},
              const std::filesystem::path& adapter = {}, const Mesh& mesh = {});

  const ModelConfig& config() const { return checkpoint_.config(); }
  const GenerationConfig& generation() const { return checkpoint_.generation(); }
  const DecoderParams& params() const { return params_; }
  const Decoder& decoder() const { return decoder_; }
  const DraftOptions& drafts() const { return drafts_; }
  DType compute() const { return compute_; }
  int64_t capacity() const { return capacity_; }
  // Layers that keep a cache.
  int64_t CacheLayers() const { return config().num_hidden_layers + (drafts_.enabled ? 1 : 0); }
  int64_t WeightBytes() const;
  // The ranks that decode together.
  const LayerGroups& groups() const { return groups_; }

 private:
  Checkpoint checkpoint_;
  DraftOptions drafts_;
  Sharding sharding_;
  LayerGroups groups_;
  DecoderParams params_;
  Decoder decoder_;
  DType compute_;
  int64_t capacity_;
};

}  // namespace fathom

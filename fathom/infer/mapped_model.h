// A model ready to decode: a checkpoint's config and its weights, mapped, or those of a model in training. Constant, so that all sequences
// share it.
#pragma once

#include <filesystem>
#include <optional>

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

// Throws Error(kUsage) unless there is an MTP module among the parameters of `model`, as messages name it.
void CheckDraftingModule(const DecoderParams& params, const std::string& model);

class MappedModel {
 public:
  // capacity: the longest sequence, prompt and answer together. adapter: a PEFT folder to put beside the weights; empty: none.
  // Throws Error(kUsage) for a capacity beyond max_position_embeddings and, with drafts, for a checkpoint without an MTP module,
  // Error(kInput) for an adapter that does not fit.
  // On a mesh the rank maps its experts, and its heads and widths of the others; all ranks see every token.
  MappedModel(Checkpoint checkpoint, DType compute, int64_t capacity, const DraftOptions& drafts = {}, const LayerOptions& layers = {},
              const std::filesystem::path& adapter = {}, const Mesh& mesh = {});

  // Of parameters that lie in memory, as they are at each pass: `params` shares them. Throws Error(kUsage) for a capacity beyond
  // max_position_embeddings.
  MappedModel(const ModelConfig& config, DecoderParams params, DType compute, int64_t capacity, const LayerOptions& layers);

  const ModelConfig& config() const { return config_; }
  const GenerationConfig& generation() const { return generation_; }
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
  std::optional<Checkpoint> checkpoint_;
  ModelConfig config_;
  GenerationConfig generation_;
  DraftOptions drafts_;
  Sharding sharding_;
  LayerGroups groups_;
  DecoderParams params_;
  Decoder decoder_;
  DType compute_;
  int64_t capacity_;
};

}  // namespace fathom

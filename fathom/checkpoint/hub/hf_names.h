// Which tensors a model of the family has under the hub's names, and whether a checkpoint holds exactly these.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/config/model_config.h"

namespace fathom {

enum class TensorKind {
  kMatrix,       // of a matrix product that DeepSeek computes in FP8: F8_E4M3 with scales in an FP8 checkpoint
  kPlainMatrix,  // embedding, head, router, eh_proj, the indexer's weights_proj: BF16 in an FP8 checkpoint
  kNorm,         // norms; F32 in the indexer
  kRouterBias,   // e_score_correction_bias: F32 everywhere
};

struct ExpectedTensor {
  std::string name;
  Shape shape;  // [out, in] or [n]
  TensorKind kind = TensorKind::kMatrix;
  int64_t layer = -1;        // -1: outside the layers
  bool is_mtp = false;       // of an MTP module, whose layer index is num_hidden_layers + k
  bool shared_copy = false;  // an MTP module's embed_tokens and shared_head.head, equal to the main model's; may be absent together
};

// Every tensor that the config implies, in the order of the model; scales are not listed. Throws Error(kInput) beyond 10 million tensors.
std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config);

// Elements of a model's parameters; router biases and the MTP modules' copies of embedding and head are not counted.
struct ParameterCounts {
  int64_t total = 0;   // of the main model
  int64_t active = 0;  // of these, what one token meets: num_experts_per_tok of the routed experts, everything else
  int64_t mtp = 0;     // of the MTP modules
};
ParameterCounts CountParameters(const ModelConfig& config);

struct ValidateOptions {
  bool allow_missing_mtp = false;      // no tensor of an MTP module need be there
  bool allow_missing_indexer = false;  // no tensor of an indexer need be there
};

// Calls report(message) for everything in which the folder's tensors differ from what config implies: missing, extra, wrong shape, a dtype
// that it cannot have, FP8 without scales or with wrong ones. One line each with file, tensor, found and expected. Old files'
// "rotary_emb.inv_freq" is tolerated. Reads headers only.
void CompareWithConfig(const TensorFolder& folder, const ModelConfig& config, const ValidateOptions& options,
                       const std::function<void(const std::string&)>& report);

// Throws Error(kInput) with the first difference and the number of the others.
void ValidateAgainstConfig(const Checkpoint& checkpoint, const ValidateOptions& options = {});

}  // namespace fathom

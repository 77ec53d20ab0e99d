// What decoding takes and reads, from sizes alone: nothing is allocated or opened.
#pragma once

#include <vector>

#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fathom/config/model_config.h"
#include "fathom/model/params.h"

namespace fathom {

struct DecodePlan {
  int64_t weight_bytes = 0;       // as stored, read where they lie
  int64_t cache_bytes = 0;        // of one sequence
  int64_t scratch_bytes = 0;      // at most, for a chunk of the prompt
  int64_t weights_per_token = 0;  // bytes read for one token: the experts chosen, everything else but the embedding and the MTP modules
  int64_t expert_bytes = 0, experts_per_token = 0;  // of these: of all routed experts, of those that a token chooses
  int64_t cache_per_token = 0;                      // bytes of the cache read for the last token of a full sequence
};

// stored: the checkpoint's tensors, scales included; compute: dtype=; capacity: prompt and answer together.
DecodePlan PlanDecode(const ModelConfig& config, const std::vector<TensorInfo>& stored, DType compute, int64_t capacity);

// Cache and scratch of one sequence of so many tokens on these parameters, whose values are not looked at.
int64_t PlanSequence(const ModelConfig& config, const DecoderParams& params, DType compute, int64_t capacity);

// So many sequences, each with its last `tokens` tokens of `depth`.
struct PassShape {
  int64_t sequences, tokens, depth;
};
// Runs the pass over all layers and the head, under a PlanScope of the caller's: returns the bytes of scratch, and an open TraceScope has
// its kernels.
int64_t PlanPass(const ModelConfig& config, const DecoderParams& params, DType compute, const PassShape& shape);

}  // namespace fathom

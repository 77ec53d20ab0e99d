// The arithmetic of a training step, counted as MaxText does (spec of its TFLOP/s line): products of active weights and causal attention
// (V3.2 beyond index_topk: of the chosen keys, and the indexer's own),
// forward and backward, nothing for recomputation.
#pragma once

#include "fathom/config/model_config.h"

namespace fathom {

// FLOP per token of a step at this sequence length. An MTP module counts as a layer, without its head.
double TrainFlopsPerToken(const ModelConfig& config, int64_t sequence_length, int64_t mtp_modules);

}  // namespace fathom

// The arithmetic of a training step, counted as MaxText does (spec of its TFLOP/s line): products of active weights and causal attention
// (V3.2 beyond index_topk: of the chosen keys, and the indexer's own),
// forward and backward, nothing for recomputation.
#pragma once

#include "fathom/config/model_config.h"
#include "fathom/train/options.h"

namespace fathom {

// FLOP per token of a step: of each matrix the forward, the gradient of its input and, where it is trained (Treatments), its own. An MTP
// module counts as a layer, without its head. The indexers' warm-up has a forward of the main model alone, over all keys and without the
// head, and the indexers' loss; sparse training has the loss besides. The products of adapters, small ones, do not count. Throws
// Error(kUsage) as Treatments does.
double TrainFlopsPerToken(const ModelConfig& config, const TrainOptions& options);
// What a run computes for that: ExpertRun::kDense multiplies a token by every expert. Throws as TrainFlopsPerToken.
double RunFlopsPerToken(const ModelConfig& config, const TrainOptions& options);

}  // namespace fathom

// What a training run books before step 0, from its config and flags alone: nothing is allocated, so it also answers for models that
// don't fit this machine.
#pragma once

#include <string>
#include <vector>

#include "fathom/config/model_config.h"
#include "fathom/train/options.h"

namespace fathom {

struct MemoryRow {
  std::string what;
  int64_t bytes;
};

// Parameters (but for those that stay mapped from a file), their bf16 copies, gradients, moments, activations kept under options.remat,
// scratch (an upper bound). Throws Error(kUsage) for masks that match nothing.
std::vector<MemoryRow> TrainMemory(const ModelConfig& config, const TrainOptions& options);

// That upper bound, which sizes the session's scratch.
int64_t TrainScratchBytes(const Decoder& decoder, const TrainOptions& options);

}  // namespace fathom

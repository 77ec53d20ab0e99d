// Faults that implementations of the family really had, each built into a model on request (docs/auditor.md).
#pragma once

#include <span>
#include <string_view>

#include "fathom/model/decoder.h"

namespace fathom {

// All that decides what a model computes.
struct ModelParts {
  ModelConfig config;
  LayerOptions layers;
  DecoderParams params;  // its tensors are shared, not copied
};

struct KnownFault {
  std::string_view name, what;  // "index_topk", "the indexer chooses one key less"
  bool (*can_occur)(const ModelConfig&);
  void (*build_in)(ModelParts&);
};

// A name may stand there several times, with variants of a fault.
std::span<const KnownFault> KnownFaults();

}  // namespace fathom

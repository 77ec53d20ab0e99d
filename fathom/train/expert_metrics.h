// How busy each layer's experts were in the last step.
#pragma once

#include "fathom/train/metrics.h"

namespace fathom {

// One expert layer's counts: largest over mean (1: balanced), and the entropy of the shares over log E (1: balanced, 0: one does it all).
struct ExpertLoad {
  double max_to_mean = 0, entropy = 0;
};
ExpertLoad LoadOf(std::span<const int64_t> counts);

// For every expert layer N that took part (MTP modules after the main layers) adds moe/load_max_to_mean/N, moe/load_entropy/N, with a
// capacity moe/dropped_share/N, and with a routing bias moe/bias_range/N, largest minus smallest.
void AddExpertScalars(TrainSession& session, Scalars& scalars);

}  // namespace fathom

// What MaxText's tree holds besides parameters and moments: the step, the optimizer's counts, streams of random numbers.
#pragma once

#include <string>
#include <vector>

#include "fathom/checkpoint/convert/convert_source.h"
#include "fathom/checkpoint/orbax/orbax.h"
#include "fathom/checkpoint/orbax/zarr_metadata.h"

namespace fathom {

inline constexpr const char* kStepArray = "step";
inline constexpr const char* kAdamState = "opt_state.0.";   // of optax's chain for AdamW: moments and their count
inline constexpr const char* kAuxState = "nnx_aux.model.";  // variables of the model that are no parameters

// An array that is stored whole and plain.
struct SmallArray {
  OrbaxLeaf leaf;
  ZarrArray zarr;
  std::string bytes;
};

// Without a state: step 0, as converters write it. With one: the step and, if there are moments, all that MaxText asks for when it resumes.
// DeepSeek models draw no random numbers in training, so that the streams begin anywhere. Throws Error(kInput): counts beyond int32.
std::vector<SmallArray> SmallArraysOf(const SourceState* state, const ModelConfig& config, bool scanned, bool zarr3);

// Slots without data that belong to the tree of a state with moments.
std::vector<OrbaxLeaf> EmptyLeavesOf(const SourceState* state);

}  // namespace fathom

// Which parameters and config fields of two checkpoints of one shape differ, and what happened to each.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fathom/base/function_ref.h"
#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/spec/model_spec.h"

namespace fathom {

enum class ParameterCause {
  kExpertsPermuted,  // b holds another expert's values there; of a router: its rows in another order
  kGateUpSwapped,    // the two matrices of one MLP in each other's place
  kTransposed,
  kRopeRows,   // rotary rows, whose pairs are neighbours, lie in halves, or the reverse
  kFp8Scales,  // the same codes under other scales
  kZeroed,
  kRounded,  // b is a in a narrower dtype
  kValues    // anything else
};
// "experts_permuted".
const char* CauseName(ParameterCause cause);

struct ParameterDifference {
  std::string name;  // the hub's; of scales, theirs
  int64_t layer;     // ParamSpec::layer; of an MTP module num_hidden_layers + k; outside the layers -1, or num_hidden_layers behind them
  ParameterCause cause;
};

// In the order of the checkpoint. Values count, not how they are stored. Reads both layer by layer and lets go of what it has read;
// progress(bytes) is called now and then with what was read of a. Throws Error(kInput): a parameter that one of them lacks or has in
// another shape (MTP modules may be missing in one), or that cannot be read.
std::vector<ParameterDifference> CompareParameters(const Checkpoint& a, const Checkpoint& b, FunctionRef<void(int64_t)> progress);

// The fields of config.json that say different things of the two models: "rms_norm_eps", "rope_scaling.factor". Not how weights are
// stored.
struct ConfigDifference {
  std::string key;
  Json a, b;  // null: not given
};
std::vector<ConfigDifference> CompareConfigs(const ModelConfig& a, const ModelConfig& b);

}  // namespace fathom

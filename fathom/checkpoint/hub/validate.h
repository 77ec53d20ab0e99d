// Does a checkpoint hold exactly the parameters that its config implies?
#pragma once

#include <functional>
#include <string>

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/spec/model_spec.h"

namespace fathom {

struct ValidateOptions {
  bool allow_missing_indexer = false;  // no tensor of an indexer need be there
};

// Calls report(message) for everything in which the folder's tensors differ from what config implies: missing, extra, wrong shape, a dtype
// that it cannot have, FP8 without scales or with wrong ones. One line each with file, tensor, found and expected. Old files'
// "rotary_emb.inv_freq" is tolerated, and MTP modules of which no tensor is there. Reads headers only.
void CompareWithConfig(const TensorFolder& folder, const ModelConfig& config, const ValidateOptions& options,
                       const std::function<void(const std::string&)>& report);

// Throws Error(kInput) with the first difference and the number of the others.
void ValidateAgainstConfig(const TensorFolder& folder, const ModelConfig& config, const ValidateOptions& options = {});
// Checkpoint::Open has done it.
void ValidateAgainstConfig(const Checkpoint& checkpoint);

}  // namespace fathom

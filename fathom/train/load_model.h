// The model that a run starts from: a checkpoint's, or fresh weights for the sizes that the flags give.
#pragma once

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/config/run_config.h"
#include "fathom/model/params.h"
#include "fathom/train/treatment.h"

namespace fathom {

struct LoadedModel {
  ModelConfig config;  // as the saved checkpoint will have it
  DecoderParams params;
  std::optional<Checkpoint> stored;              // what was read: what a run leaves alone is saved from it, byte for byte
  int64_t bytes_read = 0;                        // of its parameters, by this rank
  std::set<std::string, std::less<>> followers;  // MTP modules' copies that equalled what they copy: they still do when they are saved
};

// dir: the checkpoint to read; empty: fresh weights. MTP modules that options.mtp asks for and the checkpoint lacks are initialised if
// init_missing names mtp, indexers if it names indexer: a V3 model becomes one of V3.2. Unless options.mtp_own_head, modules that are
// trained or evaluated share the main model's embedding and head. What the run leaves alone (Treatments) is mapped as it is stored. Throws
// Error(kUsage) for flags that the checkpoint does not fit, Error(kInput) for a bad checkpoint.
// A plan with adapters needs no checkpoint: without dir it counts the one that the hub has of the flags' model.
// adapter: the PEFT folder that a run with adapters goes on from; empty: what options.lora says.
LoadedModel LoadModel(const RunConfig& config, const TrainOptions& options, const std::filesystem::path& dir,
                      const std::filesystem::path& adapter = {});

// Throws Error(kUsage): adapters, and no checkpoint `dir` that they stand beside.
void CheckAdaptersHaveBase(const TrainOptions& options, const std::filesystem::path& dir);

// Whether the model has indexers that were not read.
bool HasFreshIndexers(const LoadedModel& model);

}  // namespace fathom

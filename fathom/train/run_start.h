// What a run begins with: its folder, the model that it goes on from, what it will take.
#pragma once

#include <filesystem>
#include <optional>

#include "fathom/base/trace_window.h"
#include "fathom/config/run_config.h"
#include "fathom/train/checkpoints.h"
#include "fathom/train/load_model.h"

namespace fathom {

// The flags, once they and the model get along. Throws Error(kUsage).
const RunConfig& CheckedFlags(const RunConfig& config, const ModelConfig& model);

// Only its own loss trains an indexer: without it, a fresh one goes on choosing keys as it was drawn.
void WarnOfIdleIndexers(const LoadedModel& loaded, const TrainOptions& options);

// Made, with its metrics folder. Throws Error(kResource).
std::filesystem::path RunFolder(const TrainOptions& options);

// What LoadModel gives for the run: from the checkpoint that it resumes, if there is one. A run with adapters goes on from its own, beside
// the weights that it began with.
LoadedModel LoadStart(const RunConfig& config, const TrainOptions& options, const std::optional<ResumePoint>& resume);

// profiler=trace: MaxText counts the steps to leave out from where the run starts.
TraceWindowOptions TraceOf(const RunConfig& config, const TrainOptions& options, int64_t first_step);

// The model that the run will have, after the table of what it takes: before anything of that size is read or made. Without memory for a
// copy of the state, options.save_beside is cleared. Throws Error(kResource) if the rest does not fit either, and as LoadModel.
ModelConfig PlannedModel(const RunConfig& config, TrainOptions& options, const std::optional<ResumePoint>& resume);

}  // namespace fathom

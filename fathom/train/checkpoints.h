// A run's checkpoints: <run>/checkpoints/<step>/ in the Hugging Face layout, with train_state/ beside the weights.
#pragma once

#include <optional>

#include "fathom/base/json.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/data/batch_source.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {

// What a checkpoint is written from: views of a session's weights and moments, or of a copy of them, and of the file that was read.
struct PendingSave {
  std::filesystem::path folder;  // of all checkpoints
  int64_t keep = 0;
  Json config;
  std::vector<SavedTensor> tensors;
  TrainState state;
  SaveOptions options;
  SaveRanks ranks;
};

// Of step `step` (0-based, complete), with the companions beside the weights. The views are the session's own: they change with it.
PendingSave PrepareSave(const TrainOptions& options, const LoadedModel& loaded, const std::vector<std::filesystem::path>& companions,
                        TrainSession& session, const Json& data_state, int64_t step);
// Writes the checkpoint and removes the oldest ones beyond `keep`. Throws Error(kResource); what was there stays.
void WriteSave(const PendingSave& save);

// What one of these takes on disk.
int64_t CheckpointBytes(const TrainOptions& options, const LoadedModel& loaded, const std::vector<std::filesystem::path>& companions,
                        TrainSession& session);
// The most that a run from first_step to options.steps adds at a time to those that its folder holds.
int64_t NewCheckpoints(const TrainOptions& options, int64_t first_step);
// Throws Error(kResource) with the amounts and the flags that help if the disk of `folder`, which need not exist, can't hold `count` more.
void CheckDiskForCheckpoints(const std::filesystem::path& folder, int64_t count, int64_t bytes);

// What a run continues from.
struct ResumePoint {
  std::filesystem::path dir;  // the checkpoint
  int64_t step = 0;           // complete
  Json data_state;            // null: data is read from its start; another run's checkpoint, or none of ours (MaxText's)
};
// The latest checkpoint of the run; before there is one, load_full_state_path. Throws Error(kInput): broken, no training state.
std::optional<ResumePoint> FindResumePoint(const TrainOptions& options);

// Throws Error(kInput) if the step's adapters were trained beside another base than this: each step notes which (train/base_identity.h).
void CheckSameBase(const ResumePoint& point, const Checkpoint& base);

// Moments and step count of the optimizer; the weights were loaded with the model. Throws Error(kInput): one of them is missing or does not
// fit, or the state is another optimizer's.
void RestoreOptimizer(const ResumePoint& point, TrainSession& session);

}  // namespace fathom

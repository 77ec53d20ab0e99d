// What a training run takes: counted by building its session and running its passes under a PlanScope, so that nothing is allocated and the
// answer is the code's own; also for models and machines that are not here.
#pragma once

#include <string>
#include <vector>

#include "fathom/base/function_ref.h"
#include "fathom/parallel/axis_traffic.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {

struct MemoryRow {
  std::string what;
  int64_t bytes;
};

inline constexpr const char* kStateCopy = "state copy";

// Parameters, their bf16 copies, gradients, moments, activations kept for the backward, scratch, and if options ask for them what samples
// of text take and the copy that a checkpoint is written from while steps go on. What is mapped from a file takes no memory that the system
// could not take back, and is left out.
std::vector<MemoryRow> SessionMemory(TrainSession& session, const TrainOptions& options);
int64_t TotalBytes(const std::vector<MemoryRow>& rows);
void LogMemoryTable(const std::vector<MemoryRow>& rows);

// Leaves the state's copy out if it is what exceeds `free`: then steps wait for checkpoints. True: it did.
bool DropStateCopy(std::vector<MemoryRow>& rows, int64_t free);
// Throws Error(kResource) if that is more than `free`: how much is missing, and which flags would help.
void CheckFits(const std::vector<MemoryRow>& rows, int64_t free, const TrainOptions& options);

struct TrainPlan {
  ModelConfig config;  // as the run will have it
  std::vector<MemoryRow> memory;
  int64_t mapped = 0;        // bytes of what stays in the files that it is mapped from, which the rows leave out
  AxisTraffic traffic = {};  // of a step of this rank; on a planned mesh
};
// Of a run on so many threads that starts from what load() gives, which is called under a PlanScope. Throws Error as load does and for
// masks that match nothing.
TrainPlan PlanTraining(const TrainOptions& options, int threads, FunctionRef<LoadedModel()> load);

}  // namespace fathom

// What the ranks of a run tell of themselves: which of them is the slowest, and a log of each.
#pragma once

#include "fathom/config/run_config.h"
#include "fathom/train/metrics.h"

namespace fathom {

// Of several ranks, by the seconds of a step in which each did not wait for others; collective.
SlowestRank FindSlowest(const Mesh& mesh, double seconds);

// Of several ranks each logs to <run>/logs/rank-<number>.log, and all but the first to nowhere else. Throws Error(kResource).
void LogPerRank(const RunConfig& config, const TrainOptions& options);

}  // namespace fathom

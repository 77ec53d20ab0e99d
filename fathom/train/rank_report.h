// What the ranks of a run tell of themselves: which of them is the slowest, and a log of each.
#pragma once

#include "fathom/config/run_config.h"
#include "fathom/train/metrics.h"

namespace fathom {

// Of several ranks, by the seconds of a step in which each did not wait for others; collective.
SlowestRank FindSlowest(const Mesh& mesh, double seconds);

// What each of several ranks has read, for json=; collective.
class ReadByRank {
 public:
  explicit ReadByRank(const Mesh& mesh) : mesh_(mesh) {}
  // Of every rank a number under `name`.
  void Note(const char* name, int64_t mine);
  // [{"rank": 0, NAME: ...}, ...]; null for one process.
  const Json& json() const { return ranks_; }

 private:
  const Mesh& mesh_;
  Json ranks_;
};

// Of several ranks each logs to <run>/logs/rank-<number>.log, and all but the first to nowhere else. Throws Error(kResource).
void LogPerRank(const RunConfig& config, const TrainOptions& options);

}  // namespace fathom

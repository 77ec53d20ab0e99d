// fathom plan of a training run on ranks that are not here: the mesh of the flags, or the best one for so many hosts.
#pragma once

#include "apps/plan_report.h"
#include "fathom/train/memory.h"

namespace fathom {

// hosts= times ranks_per_host=, or the ranks that the mesh's flags ask for. Throws Error(kUsage): a host would have part of a rank.
int64_t PlannedRanks(const RunConfig& flags);

// As the run itself would plan, with its flags checked.
TrainPlan PlanOf(const RunConfig& flags, const TrainOptions& options);

// What every plan of a model begins with.
void AddModel(Report& report, const ModelConfig& config);
// The table of one process or one rank.
void AddMemory(Report& report, const Machine& machine, const TrainPlan& plan);
// The end of a table: fits that into a host's memory?
void AddMemoryTotal(Report& report, const Machine& machine, int64_t total);

// Memory of the rank that takes the most, bytes sent by the first, time of a step. Throws Error as the run would.
void PlanMesh(const RunConfig& flags, Machine& machine, Report& report);

// search=true: every mesh of so many ranks, the best first, and why. Throws Error(kUsage) unless hosts= is given.
void SearchMesh(const RunConfig& flags, Machine& machine, Report& report);

}  // namespace fathom

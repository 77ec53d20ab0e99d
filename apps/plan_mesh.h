// fathom plan of a training run, also on ranks that are not here: the mesh of the flags, or the best one for so many hosts.
#pragma once

#include "apps/plan_report.h"
#include "fathom/train/memory.h"

namespace fathom {

// As the run itself would plan, with its flags checked.
TrainPlan PlanOf(const RunConfig& flags, const TrainOptions& options);

// The table of one process (alone) or one of several ranks.
void AddMemory(Report& report, const Machine& machine, const TrainPlan& plan, bool alone);

// Memory of the rank that takes the most, bytes sent by the first, time of a step. Throws Error as the run would.
void PlanMesh(const RunConfig& flags, Machine& machine, Report& report);

// search=true: the best mesh for so many ranks, and why. Throws Error as SearchMesh.
void SearchTrainingMesh(const RunConfig& flags, Machine& machine, Report& report);

}  // namespace fathom

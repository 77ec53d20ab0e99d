// What the flags of a run imply, and which of them exclude each other.
#pragma once

#include "fathom/config/run_config.h"

namespace fathom {

// Fills flags whose default stands for another's value (steps and learning_rate_schedule_steps, mu_dtype, run_name ...); source "derived".
void DeriveFlags(RunConfig& config);

// Throws Error(kUsage) for flags that contradict each other.
void CheckFlagsTogether(const RunConfig& config);

}  // namespace fathom

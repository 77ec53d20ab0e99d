// Starts the ranks of a job (ranks=N), hands signals on to them, and goes on with fewer when some are gone (restart=auto).
#pragma once

#include <string>
#include <vector>

#include "fathom/config/run_config.h"

namespace fathom {

// ranks=N; 0: this process is to do the work itself. Throws Error(kUsage): neither a number nor "mpi".
int64_t RanksToStart(const RunConfig& config);

// Runs `fathom COMMAND ARGUMENTS` on config's ranks under its launcher, and returns the job's exit code; of a job that a signal to this
// process has stopped, 128 and the signal. Throws Error(kUsage): there is no mesh that restart=auto could go on with.
int LaunchRanks(const std::string& command, const std::vector<std::string>& arguments, const RunConfig& config);

}  // namespace fathom

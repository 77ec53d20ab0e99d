#pragma once

#include <string>

#include "fathom/config/run_config.h"
#include "fathom/parallel/comm.h"

namespace fathom {

// Environments and files of hosts may differ, and with them what ranks are asked for: Error(kUsage) on all of them naming the first flag
// that is not the same (how many threads a rank has and the like are its own). Collective.
void CheckSameFlags(const Comm& world, const std::string& command, const RunConfig& config);

}  // namespace fathom

#pragma once

#include <set>
#include <string>

#include "fathom/config/run_config.h"

namespace fathom {

// Files that a command writes in the end, of the flags that it reads (`config` and `plan` write json= alone): what is wrong with their
// folder is said before the work. Throws Error(kUsage).
void CheckOutputs(const std::string& command, const std::set<std::string>& read, const RunConfig& config);

}  // namespace fathom

// How much processor time this process is given.
#pragma once

#include "fathom/machine/control_groups.h"

namespace fathom {

// In cores: the least that a control group around this process allows (a container's --cpus), infinity where none does.
double CpuQuota(const SystemPaths& paths = {});

// The threads that can run at a time: cores that this process may run on, and no more than the quota pays for. More of them would wait for
// each other, for as long as the quota holds one back.
int UsableCores();

}  // namespace fathom

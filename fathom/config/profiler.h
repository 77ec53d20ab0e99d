// profiler=: MaxText's flag, with a value of ours.
#pragma once

#include "fathom/config/run_config.h"

namespace fathom {

// profiler=trace. MaxText's own values look at accelerators: they are named in one line and change nothing.
bool WantsTrace(const RunConfig& config);

}  // namespace fathom

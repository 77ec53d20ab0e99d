// How kernels cut their work for many threads, known without them.
#pragma once

#include "fathom/base/json.h"
#include "fathom/config/run_config.h"

namespace fathom {

// `fathom bench plan`: for decoding 1, 8 and 32 sequences and for a training step of model_name's shapes, each kernel that takes more than
// 1 % of the time with its jobs for 16 to 256 threads, and the most that a thread has of them over the mean. Prints tables unless `quiet`;
// returns them. Throws Error(kUsage).
Json BenchPlan(const RunConfig& config, bool quiet);

}  // namespace fathom

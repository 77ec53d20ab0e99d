// What this engine reaches on a model, as a fraction of what the machine can do.
#pragma once

#include "fathom/config/run_config.h"
#include "fathom/machine/limits.h"

namespace fathom {

struct EngineRate {
  Rate tokens_per_s;
  double fraction = 0;  // of the machine's bound
};

// Steps on synthetic data, of the flags' model or of a checkpoint's; the bound is the product rate. Writes nothing. Throws Error(kUsage).
EngineRate BenchTrain(const RunConfig& config, double gflops);

// Greedy decoding of one sequence from load_parameters_path; the bound is the reading of the weights that one token meets.
EngineRate BenchDecode(const RunConfig& config, double read_gb_s);

}  // namespace fathom

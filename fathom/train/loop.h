// `fathom train`: the loop over steps with its evals, checkpoints, reports and reasons to stop.
#pragma once

#include "fathom/config/run_config.h"
#include "fathom/parallel/mesh.h"

namespace fathom {

// Writes what came out of it to json=: name, steps done, last loss and eval loss, checkpoint, speed. Returns the exit code: 0; 1 when the
// loss became NaN or infinite, or the gradient was so for five steps in a row; 128 + signal when a signal stopped the run (which was
// saved).
int RunTraining(const RunConfig& config);
// As one rank of several: each trains its share, the first of them reports and writes what is not a rank's own.
int TrainOnMesh(const RunConfig& config, const Mesh& mesh);

}  // namespace fathom

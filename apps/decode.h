// What fathom decode and its plan have in common.
#pragma once

#include "fathom/config/run_config.h"
#include "fathom/parallel/mesh.h"

namespace fathom {

// Throws Error(kUsage) unless decoding divides the model so: experts and heads, not rows, tokens or layers.
void CheckDecodingMesh(const RunConfig& config, const Mesh& mesh, const ModelConfig& model);

}  // namespace fathom

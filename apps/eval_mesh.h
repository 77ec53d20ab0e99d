// How ranks divide an evaluation: what is asked along data and fsdp, the model along expert and tensor.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "fathom/config/run_config.h"
#include "fathom/parallel/mesh.h"

namespace fathom {

// Throws Error(kUsage): ranks along another axis, or as CheckMesh.
void CheckEvalMesh(const RunConfig& config, const Mesh& mesh, const ModelConfig& model);

// Those that ask different things are numbered along data, then fsdp.
int64_t AskerOf(const Mesh& mesh);
int64_t AskersOf(const Mesh& mesh);
// What each of them says, in their order; collective.
std::vector<std::string> GatherFromAskers(const Mesh& mesh, const std::string& mine);
// Sums over them; collective.
void SumOverAskers(const Mesh& mesh, std::span<double> x);

}  // namespace fathom

#include "apps/eval_mesh.h"

#include "fathom/base/error.h"
#include "fathom/base/json.h"

namespace fathom {

void CheckEvalMesh(const RunConfig& config, const Mesh& mesh, const ModelConfig& model) {
  for (const Axis axis : {Axis::kContext, Axis::kStage}) {
    if (mesh.size(axis) > 1)
      Throw(ErrorCode::kUsage, "{}={}: questions and text are divided along data and fsdp, the model along expert and tensor: give 1",
            MeshFlag(config, axis), mesh.size(axis));
  }
  CheckMesh(config, mesh, model, 0);
}

int64_t AskerOf(const Mesh& mesh) { return int64_t{mesh.rank(Axis::kData)} * mesh.size(Axis::kFsdp) + mesh.rank(Axis::kFsdp); }
int64_t AskersOf(const Mesh& mesh) { return int64_t{mesh.size(Axis::kData)} * mesh.size(Axis::kFsdp); }

std::vector<std::string> GatherFromAskers(const Mesh& mesh, const std::string& mine) {
  std::vector<std::string> all;
  for (const std::string& text : AllGatherText(mesh.comm(Axis::kData), Json(AllGatherText(mesh.comm(Axis::kFsdp), mine)).dump())) {
    for (const Json& one : Json::parse(text)) all.push_back(one.get<std::string>());
  }
  return all;
}

void SumOverAskers(const Mesh& mesh, std::span<double> x) {
  mesh.comm(Axis::kFsdp).AllSum(x);
  mesh.comm(Axis::kData).AllSum(x);
}

}  // namespace fathom

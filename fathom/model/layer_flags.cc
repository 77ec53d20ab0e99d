#include "fathom/model/layer_flags.h"

#include "fathom/base/error.h"

namespace fathom {

DType ParseComputeDType(const RunConfig& config, const std::string& flag) {
  const std::string& name = config.String(flag);
  if (name == "float32") return DType::kF32;
  if (name == "bfloat16") return DType::kBF16;
  Throw(ErrorCode::kUsage, "{}={}: allowed are float32, bfloat16", flag, name);
}

LayerOptions ReadLayerOptions(const RunConfig& config) {
  LayerOptions o;
  o.indexer_fp8 = config.Bool("indexer_fp8");
  o.experts.capacity_factor = config.Float("capacity_factor");
  if (config.Bool("sparse_matmul")) {
    if (o.experts.capacity_factor == -1) return o;
    Throw(ErrorCode::kUsage, "capacity_factor={}: tokens are dropped only with sparse_matmul=false: give it, or leave capacity_factor out",
          o.experts.capacity_factor);
  }
  o.experts.kind = o.experts.capacity_factor > 0 ? ExpertRun::kCapacity : ExpertRun::kDense;
  return o;
}

}  // namespace fathom

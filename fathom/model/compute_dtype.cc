#include "fathom/model/compute_dtype.h"

#include "fathom/base/error.h"

namespace fathom {

DType ParseComputeDType(const RunConfig& config, const std::string& flag) {
  const std::string& name = config.String(flag);
  if (name == "float32") return DType::kF32;
  if (name == "bfloat16") return DType::kBF16;
  Throw(ErrorCode::kUsage, "{}={}: allowed are float32, bfloat16", flag, name);
}

}  // namespace fathom

#pragma once

#include <string>

#include "fathom/config/run_config.h"
#include "fathom/tensor/dtype.h"

namespace fathom {

// The value of a dtype flag: "float32" or "bfloat16". Throws Error(kUsage) naming the flag.
DType ParseComputeDType(const RunConfig& config, const std::string& flag);

}  // namespace fathom

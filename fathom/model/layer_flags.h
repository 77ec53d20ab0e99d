// What the flags say about how layers are computed.
#pragma once

#include <string>

#include "fathom/config/run_config.h"
#include "fathom/layers/options.h"
#include "fathom/tensor/dtype.h"

namespace fathom {

// The value of a dtype flag: "float32" or "bfloat16". Throws Error(kUsage) naming the flag.
DType ParseComputeDType(const RunConfig& config, const std::string& flag);

// sparse_matmul, capacity_factor, indexer_fp8.
LayerOptions ReadLayerOptions(const RunConfig& config);

}  // namespace fathom

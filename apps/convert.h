// The flags of a conversion, for `fathom convert` and `fathom plan convert`.
#pragma once

#include <string>
#include <vector>

#include "fathom/checkpoint/convert/convert.h"
#include "fathom/config/run_config.h"

namespace fathom {

// input and output stay empty where no flag names them. Throws Error(kUsage). The result refers to config.
ConvertOptions ReadConvertOptions(const RunConfig& config);

// Every flag that it reads.
std::vector<std::string> ConvertFlags();

}  // namespace fathom

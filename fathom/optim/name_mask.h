// Flags that choose parameters by regular expressions: adamw_mask, trainable_parameters_mask.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom {

// result[i]: one of the patterns (ECMAScript) is found somewhere in names[i], as it stands ("model.layers.0.mlp.gate.weight") or with
// '/' between its parts ("model/layers/0/..."). Throws Error(kUsage) for a pattern that is no regular expression or is found in no
// name, with the flag and the names that come nearest.
std::vector<bool> MatchNames(std::string_view flag, const std::vector<std::string>& patterns, const std::vector<std::string>& names);

}  // namespace fathom

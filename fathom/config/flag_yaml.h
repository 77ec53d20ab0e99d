// Flags from a yml file. The only user of yaml-cpp.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fathom/config/flag_table.h"

namespace fathom {

using NamedValues = std::vector<std::pair<std::string, FlagValue>>;  // in the order of the file

// Values typed by the look of them (base.yml, whose values define the flags' types).
NamedValues ReadYamlByLook(std::string_view text, const std::string& where);

// Values typed and checked by the flags of these names. Throws Error(kUsage): not YAML, not a map, unknown flag, wrong type.
NamedValues ReadYamlFlags(std::string_view text, const std::string& where);

}  // namespace fathom

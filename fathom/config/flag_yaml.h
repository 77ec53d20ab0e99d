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

struct YamlFlags {
  NamedValues values;
  std::vector<std::string> unknown;  // keys that are no flag
};

// Values typed by the flags of these names, `lora: {lora_rank: 8}` being lora.lora_rank; whether they are allowed is not asked, since
// another file may have the last word. Throws Error(kUsage): not YAML, not a map, wrong type.
YamlFlags ReadYamlFlags(std::string_view text, const std::string& where);

}  // namespace fathom

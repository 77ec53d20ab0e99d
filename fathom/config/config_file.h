// The yml files that a run is resolved from: the program's own, the user's, and those of a MaxText checkout.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "fathom/config/flag_yaml.h"

namespace fathom {

struct ConfigFile {
  std::string name;              // for messages
  std::filesystem::path folder;  // where it lies; empty: part of the program
  YamlFlags flags;
  bool is_maxtext = false;  // lies in a folder maxtext/configs
};

// A path that is not there stands for the built-in file of that name: MaxText's guide writes src/maxtext/configs/base.yml. In a file of
// MaxText's, a key that is no flag is listed in flags.unknown; in any other Error(kUsage).
ConfigFile ReadConfigFile(const std::filesystem::path& path);

// The file that `base_config: path` names in file: beside it, else, as MaxText looks, one folder up.
ConfigFile ReadParent(const ConfigFile& file, const std::filesystem::path& path);

// The file of a model: models/NAME.yml beside the config file, one folder up, or built in. NAME may be one of the hub's names
// (deepseek-ai/DeepSeek-R1) or end in .yml. What MaxText's file sets is laid over the built-in one of that name, which says more (the
// groups of V3's routing). Throws Error(kUsage): unknown.
ConfigFile ReadModelFile(const std::string& name, const std::filesystem::path& config_folder);

// The model's name as this program has it: deepseek3-671b for deepseek3.1-671b, deepseek-r1, DeepSeek-V3-0324 ...; others as they are.
std::string ModelNameOfAlias(const std::string& name);

// The value that a copy of base.yml repeats without asking for it: base.yml's default, or MaxText's in a copy of MaxText's. A file is a
// copy if it has more than half of those flags; MaxText's is one wherever it has no parent.
enum class CopyKind { kNone, kOwn, kMaxText };
CopyKind CopyKindOf(const ConfigFile& file);

bool IsYml(std::string_view text);

}  // namespace fathom

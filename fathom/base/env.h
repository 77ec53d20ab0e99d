// The only place that reads the environment; docs/environment.md lists every variable.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fathom {

std::optional<std::string> GetEnv(const std::string& name);

// All variables whose name begins with prefix: (name, value), sorted by name.
std::vector<std::pair<std::string, std::string>> EnvWithPrefix(const std::string& prefix);

}  // namespace fathom

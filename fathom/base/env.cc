#include "fathom/base/env.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace fathom {

std::optional<std::string> GetEnv(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (value == nullptr) return std::nullopt;
  return std::string(value);
}

std::vector<std::pair<std::string, std::string>> EnvWithPrefix(const std::string& prefix) {
  std::vector<std::pair<std::string, std::string>> found;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string line = *entry;
    const size_t equals = line.find('=');
    if (line.starts_with(prefix) && equals != std::string::npos) {
      found.emplace_back(line.substr(0, equals), line.substr(equals + 1));
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace fathom

#include "fathom/machine/control_groups.h"

#include <fmt/format.h>

#include <fstream>
#include <string>

namespace fathom {
namespace {

namespace fs = std::filesystem;

// A group and all around it. Inside a container the path may be the host's: then only the mount's root is there.
void ForGroupAndParents(const fs::path& mount, const fs::path& group, int version, FunctionRef<void(const fs::path&, int)> f) {
  for (fs::path path = group.relative_path();; path = path.parent_path()) {
    f(path.empty() ? mount : mount / path, version);
    if (path.empty()) return;
  }
}

}  // namespace

std::optional<int64_t> NumberIn(const fs::path& path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

void ForControlGroups(const SystemPaths& paths, std::string_view controller, FunctionRef<void(const fs::path& dir, int version)> f) {
  std::ifstream groups(paths.proc / "self" / "cgroup");
  for (std::string line; std::getline(groups, line);) {  // number:controllers:path
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = fmt::format(",{},", line.substr(first + 1, second - first - 1));
    const fs::path group = line.substr(second + 1);
    if (controllers == ",,") {
      for (const fs::path& mount : {paths.cgroups, paths.cgroups / "unified"}) ForGroupAndParents(mount, group, 2, f);
    } else if (controllers.find(fmt::format(",{},", controller)) != controllers.npos) {
      ForGroupAndParents(paths.cgroups / controller, group, 1, f);
    }
  }
}

}  // namespace fathom

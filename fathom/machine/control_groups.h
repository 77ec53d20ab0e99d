// The control groups around this process, version 1 or 2.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "fathom/base/function_ref.h"

namespace fathom {

// Where a system, or a test's copy of one, says what it does.
struct SystemPaths {
  std::filesystem::path proc = "/proc", cgroups = "/sys/fs/cgroup";
};

// f(folder, version) for every group that the controller may limit, from this process's own to the outermost.
void ForControlGroups(const SystemPaths& paths, std::string_view controller,
                      FunctionRef<void(const std::filesystem::path& dir, int version)> f);

// A file of one number; nothing if it is not there or says "max".
std::optional<int64_t> NumberIn(const std::filesystem::path& path);

}  // namespace fathom

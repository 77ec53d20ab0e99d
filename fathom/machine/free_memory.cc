#include "fathom/machine/free_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "fathom/base/error.h"
#include "fathom/base/progress.h"
#include "fathom/machine/control_groups.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
constexpr int64_t kUsualStack = 8 << 20,
                  kLibraries = 96 << 20;  // of a thread; what oneDNN and the allocator take for compiled code and heaps

// The number behind `key` in a file of lines "key number" or "key: number kB"; 0 if there is none.
int64_t NumberOf(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  for (int64_t number = 0; file >> word;) {
    if (word == key && file >> number) return number;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

// How one version of control groups calls its files. A limit of version 1 that is none is a number beyond all memory.
struct GroupFiles {
  const char *limit, *usage, *droppable;
};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};

int64_t FreeInGroup(const fs::path& dir, const GroupFiles& files) {
  const std::optional<int64_t> limit = NumberIn(dir / files.limit), usage = NumberIn(dir / files.usage);
  if (!limit || !usage) return kUnlimited;
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, *usage - NumberOf(dir / "memory.stat", files.droppable)));
}

}  // namespace

void CheckAddressSpace(int threads) {
  rlimit space{}, stack{};
  if (::getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur == RLIM_INFINITY || ::getrlimit(RLIMIT_STACK, &stack) != 0) return;
  const int64_t limit = static_cast<int64_t>(space.rlim_cur), used = NumberIn("/proc/self/statm").value_or(0) * ::sysconf(_SC_PAGESIZE);
  const int64_t each = stack.rlim_cur == RLIM_INFINITY ? kUsualStack : static_cast<int64_t>(stack.rlim_cur);
  const int64_t needed = used + kLibraries + (threads - 1) * each;
  if (limit >= needed) return;
  Throw(ErrorCode::kResource,
        "the address space is limited to {} (ulimit -v), {} threads need {} at least; raise the limit or lower threads=",
        FormatBytes(static_cast<double>(limit)), threads, FormatBytes(static_cast<double>(needed)));
}

int64_t FreeMemoryBytes(const fs::path& proc, const fs::path& cgroups) {
  const int64_t available = NumberOf(proc / "meminfo", "MemAvailable:") * 1024;
  int64_t least = available > 0 ? available : kUnlimited;
  ForControlGroups({proc, cgroups}, "memory", [&](const fs::path& group, int version) {
    least = std::min(least, FreeInGroup(group, version == 1 ? kVersion1 : kVersion2));
  });
  return least;
}

}  // namespace fathom

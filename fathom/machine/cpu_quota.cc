#include "fathom/machine/cpu_quota.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "fathom/base/threads.h"

namespace fathom {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

double Cores(double quota, double period) { return quota > 0 && period > 0 ? quota / period : kUnlimited; }

// Microseconds of each period: "150000 100000" in version 2, where "max" is no limit; -1 in version 1.
double QuotaOf(const std::filesystem::path& group, int version) {
  if (version == 1) {
    return Cores(static_cast<double>(NumberIn(group / "cpu.cfs_quota_us").value_or(-1)),
                 static_cast<double>(NumberIn(group / "cpu.cfs_period_us").value_or(0)));
  }
  std::ifstream file(group / "cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period ? Cores(quota, period) : kUnlimited;
}

}  // namespace

double CpuQuota(const SystemPaths& paths) {
  double least = kUnlimited;
  ForControlGroups(paths, "cpu",
                   [&](const std::filesystem::path& group, int version) { least = std::min(least, QuotaOf(group, version)); });
  return least;
}

int UsableCores() {
  const int cores = AllowedCores();
  return std::max(1, static_cast<int>(std::min<double>(cores, std::ceil(CpuQuota()))));
}

}  // namespace fathom

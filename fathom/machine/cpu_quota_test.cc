#include "fathom/machine/cpu_quota.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "fathom/base/scratch_folder.h"
#include "fathom/base/threads.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

class CpuQuotaTest : public testing::Test {
 protected:
  void Write(const fs::path& path, const std::string& text) {
    fs::create_directories((folder_.path() / path).parent_path());
    std::ofstream(folder_.path() / path) << text;
  }
  double Quota() const { return CpuQuota({folder_.path() / "proc", folder_.path() / "cgroup"}); }
  ScratchFolder folder_;
};

TEST_F(CpuQuotaTest, IsTheLeastOfTheGroupsAroundIt) {
  EXPECT_TRUE(std::isinf(Quota()));
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_TRUE(std::isinf(Quota()));
  Write("cgroup/a/cpu.max", "150000 100000\n");
  EXPECT_DOUBLE_EQ(Quota(), 1.5);
  Write("cgroup/a/b/cpu.max", "20000 40000\n");
  EXPECT_DOUBLE_EQ(Quota(), 0.5);
}

TEST_F(CpuQuotaTest, OfVersion1) {
  Write("proc/self/cgroup", "4:memory:/x\n5:cpu,cpuacct:/docker/1\n6:cpuset:/y\n0::/\n");
  Write("cgroup/cpu/docker/1/cpu.cfs_quota_us", "-1\n");
  Write("cgroup/cpu/docker/1/cpu.cfs_period_us", "100000\n");
  EXPECT_TRUE(std::isinf(Quota()));
  Write("cgroup/cpu/docker/1/cpu.cfs_quota_us", "300000\n");
  EXPECT_DOUBLE_EQ(Quota(), 3);
}

TEST(UsableCoresHere, AreSomeOfTheAllowed) {
  EXPECT_GE(UsableCores(), 1);
  EXPECT_LE(UsableCores(), AllowedCores());
}

}  // namespace
}  // namespace fathom

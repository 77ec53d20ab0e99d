#include "fathom/machine/free_memory.h"

#include <gtest/gtest.h>

#include <fstream>

#include "fathom/base/scratch_folder.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

class FreeMemory : public testing::Test {
 protected:
  void Write(const fs::path& path, const std::string& text) {
    fs::create_directories((folder_.path() / path).parent_path());
    std::ofstream(folder_.path() / path) << text;
  }
  int64_t Bytes() const { return FreeMemoryBytes(folder_.path() / "proc", folder_.path() / "cgroup"); }
  void SetUp() override { Write("proc/meminfo", "MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable:   1000 kB\n"); }

  ScratchFolder folder_;
};

TEST_F(FreeMemory, OfTheMachine) {
  EXPECT_EQ(Bytes(), 1024000);
  Write("proc/self/cgroup", "0::/\n");
  EXPECT_EQ(Bytes(), 1024000);
}

TEST_F(FreeMemory, OfAGroupAndThoseAroundIt) {
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("cgroup/a/b/memory.max", "max\n");
  Write("cgroup/a/b/memory.current", "5000\n");
  Write("cgroup/a/memory.max", "90000\n");
  Write("cgroup/a/memory.current", "60000\n");
  Write("cgroup/a/memory.stat", "anon 1\ninactive_file 20000\nactive_file 7\n");
  EXPECT_EQ(Bytes(), 50000);
  Write("cgroup/a/b/memory.max", "6000\n");
  EXPECT_EQ(Bytes(), 1000);
  Write("cgroup/a/b/memory.current", "7000\n");
  EXPECT_EQ(Bytes(), 0);
}

TEST_F(FreeMemory, OfVersion1InAContainer) {
  Write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1234\n0::/\n");
  Write("cgroup/memory/memory.limit_in_bytes", "70000\n");
  Write("cgroup/memory/memory.usage_in_bytes", "30000\n");
  Write("cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n");
  EXPECT_EQ(Bytes(), 42000);
  Write("cgroup/memory/docker/1234/memory.limit_in_bytes", "9223372036854771712\n");
  Write("cgroup/memory/docker/1234/memory.usage_in_bytes", "0\n");
  EXPECT_EQ(Bytes(), 42000);
}

TEST(FreeMemoryHere, IsSomething) { EXPECT_GT(FreeMemoryBytes(), 1 << 20); }

}  // namespace
}  // namespace fathom

#include "fathom/machine/numa.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <thread>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// What the kernel says of this thread's first mapping, which has no policy of its own. Empty where it says nothing.
std::string PolicyOfThread() {
  std::ifstream maps("/proc/thread-self/numa_maps");
  std::string address, policy;
  maps >> address >> policy;
  return policy;
}

TEST(Numa, PolicyIsThatOfThreadsStartedLater) {
  std::string seen, error;
  std::thread([&] {
    try {
      SetNumaPolicy("interleave");
      std::thread([&] { seen = PolicyOfThread(); }).join();
    } catch (const Error& e) {
      error = e.what();
    }
  }).join();
  if (!error.empty() || seen.empty()) GTEST_SKIP() << "no libnuma or no policies here: " << error;
  EXPECT_TRUE(seen.starts_with("interleave")) << seen;
}

TEST(Numa, OffNeedsNothing) { EXPECT_NO_THROW(SetNumaPolicy("off", "no_such_library.so")); }

TEST(Numa, WithoutTheLibraryIsOneLine) {
  try {
    SetNumaPolicy("local", "no_such_library.so");
    FAIL() << "it is not there";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kResource);
    EXPECT_NE(std::string(e.what()).find("numa=local: no_such_library.so cannot be opened"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace fathom

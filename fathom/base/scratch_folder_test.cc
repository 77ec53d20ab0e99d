#include "fathom/base/scratch_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <string>
#include <thread>

#include "fathom/base/error.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

bool SoonGone(const fs::path& path) {
  for (int i = 0; i < 1000 && fs::exists(path); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return !fs::exists(path);
}

TEST(ScratchFolder, GoesWithTheObject) {
  fs::path path;
  {
    const ScratchFolder folder;
    path = folder.path();
    fs::create_directories(path / "a" / "b");
    std::ofstream(path / "a" / "file") << "x";
    EXPECT_TRUE(fs::is_directory(path));
  }
  EXPECT_FALSE(fs::exists(path));
}

TEST(ScratchFolder, SaysWhereThereIsNoRoomForOne) {
  ::setenv("TMPDIR", "/nonexistent/folder", 1);
  try {
    const ScratchFolder folder;
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("TMPDIR=/nonexistent/folder"), std::string::npos) << e.what();
  }
  ::unsetenv("TMPDIR");
}

TEST(ScratchFolder, GoesWithAKilledProcess) {
  for (const int signal : {SIGKILL, SIGINT}) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      const ScratchFolder folder;
      std::ofstream(folder.path() / "file") << "x";
      const std::string name = folder.path().string();
      const bool written = ::write(ends[1], name.data(), name.size()) == static_cast<ssize_t>(name.size());
      ::kill(written ? ::getpid() : 0, signal);
      ::_exit(1);
    }
    std::string name(4096, '\0');
    name.resize(static_cast<size_t>(std::max<ssize_t>(0, ::read(ends[0], name.data(), name.size()))));
    ASSERT_FALSE(name.empty());
    ::waitpid(child, nullptr, 0);
    EXPECT_TRUE(SoonGone(name)) << name;
    ::close(ends[0]);
    ::close(ends[1]);
  }
}

}  // namespace
}  // namespace fathom

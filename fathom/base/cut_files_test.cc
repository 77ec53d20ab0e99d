#include "fathom/base/cut_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "fathom/base/file.h"

namespace fathom {
namespace {

// Maps a file, cuts it, and reads where it was.
void ReadCutFile(const std::filesystem::path& path) {
  ReportCutFiles();
  WriteFileAtomically(path, std::string(100000, 'x'));
  const auto file = MappedFile::Open(path);
  std::filesystem::resize_file(path, 10);
  std::_Exit(static_cast<int>(file->bytes()[90000]));
}

std::filesystem::path TestPath() { return std::filesystem::temp_directory_path() / ("fathom cut file " + std::to_string(::getpid())); }

TEST(CutFilesDeathTest, OneLineAndTheExitCodeOfBadInput) {
  const auto path = TestPath();
  EXPECT_EXIT(ReadCutFile(path), ::testing::ExitedWithCode(3), "^fathom: error: /.*fathom cut file [0-9]+: cut short, .*\n$");
  EXPECT_EXIT(std::thread(ReadCutFile, path).join(), ::testing::ExitedWithCode(3), "cut short");
  std::filesystem::remove(path);
}

TEST(CutFilesDeathTest, OtherBusErrorsStayWhatTheyAre) {
  const auto raise = [] {
    ReportCutFiles();
    std::raise(SIGBUS);
  };
  EXPECT_EXIT(raise(), ::testing::KilledBySignal(SIGBUS), "^$");
}

}  // namespace
}  // namespace fathom

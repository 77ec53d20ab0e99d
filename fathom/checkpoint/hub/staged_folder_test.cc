#include "fathom/checkpoint/hub/staged_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class StagedFolderTest : public testing::Test {
 protected:
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) names.push_back(entry.path().filename().string());
    std::ranges::sort(names);
    return names;
  }
  template <class F>
  static std::string ErrorOf(const F& f, ErrorCode code) {
    try {
      f();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code);
      return e.what();
    }
    return "";
  }
  TemporaryFolder folder_;
  const std::filesystem::path target_ = folder_.path() / "out";
};

TEST_F(StagedFolderTest, AppearsOnCommit) {
  {
    StagedFolder stage(target_, false);
    WriteFileAtomically(stage.path() / "x", "1");
    EXPECT_FALSE(std::filesystem::exists(target_));
    stage.Commit();
  }
  EXPECT_THAT(Names(), ElementsAre("out"));
  EXPECT_EQ(ReadTextFile(target_ / "x"), "1");
}

TEST_F(StagedFolderTest, VanishesWithoutCommit) {
  { StagedFolder stage(folder_.path() / "a" / "out", false); }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path() / "a"));
}

TEST_F(StagedFolderTest, ExistingTarget) {
  std::filesystem::create_directory(target_);
  WriteFileAtomically(target_ / "old", "1");
  EXPECT_THAT(ErrorOf([&] { StagedFolder stage(target_, false); }, ErrorCode::kUsage), HasSubstr("overwrite=true"));
  { StagedFolder stage(target_, true); }
  EXPECT_TRUE(std::filesystem::exists(target_ / "old"));
  StagedFolder stage(target_.string() + "/", true);
  WriteFileAtomically(stage.path() / "new", "1");
  stage.Commit();
  EXPECT_TRUE(std::filesystem::exists(target_ / "new"));
  EXPECT_FALSE(std::filesystem::exists(target_ / "old"));
  EXPECT_THAT(Names(), ElementsAre("out"));
}

TEST_F(StagedFolderTest, LeftoversOfAKilledProcessGo) {
  std::filesystem::create_directories(folder_.path() / ".out.partial" / "deep");
  WriteFileAtomically(folder_.path() / ".out.partial" / "deep" / "x", "1");
  StagedFolder stage(target_, false);
  EXPECT_TRUE(std::filesystem::is_empty(stage.path()));
  stage.Commit();
  EXPECT_TRUE(std::filesystem::is_empty(target_));
}

TEST_F(StagedFolderTest, OneWriterAtATime) {
  StagedFolder stage(target_, true);
  WriteFileAtomically(stage.path() / "x", "1");
  EXPECT_THAT(ErrorOf([&] { StagedFolder second(target_, true); }, ErrorCode::kInput), HasSubstr("another process"));
  stage.Commit();
  EXPECT_TRUE(std::filesystem::exists(target_ / "x"));
  StagedFolder third(target_, true);
}

TEST_F(StagedFolderTest, StageThatWasTakenAwayIsNotCommitted) {
  StagedFolder stage(target_, false);
  std::filesystem::remove_all(stage.path());
  std::filesystem::create_directory(stage.path());
  EXPECT_THAT(ErrorOf([&] { stage.Commit(); }, ErrorCode::kResource), HasSubstr("was removed"));
  EXPECT_FALSE(std::filesystem::exists(target_));
}

TEST_F(StagedFolderTest, ParentIsAFile) {
  WriteFileAtomically(target_, "");
  EXPECT_THAT(ErrorOf([&] { StagedFolder stage(target_ / "x", false); }, ErrorCode::kInput), HasSubstr("cannot create"));
}

TEST_F(StagedFolderTest, FreeSpace) {
  EXPECT_THAT(ErrorOf([&] { CheckFreeSpace(target_ / "not" / "there", int64_t{1} << 60); }, ErrorCode::kResource), HasSubstr("are needed"));
  CheckFreeSpace(target_, 1);
}

TEST_F(StagedFolderTest, DoesNotWorkThroughALink) {
  const std::filesystem::path elsewhere = folder_.path() / "elsewhere";
  std::filesystem::create_directories(elsewhere);
  WriteFileAtomically(elsewhere / "precious", "x");
  std::filesystem::create_symlink(elsewhere, folder_.path() / ".out.partial");
  EXPECT_THAT(ErrorOf([&] { StagedFolder(target_, true); }, ErrorCode::kInput), HasSubstr("cannot start writing"));
  EXPECT_TRUE(std::filesystem::exists(elsewhere / "precious"));
}

}  // namespace
}  // namespace fathom

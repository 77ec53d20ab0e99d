#include "fathom/data/split_files.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

class SplitFiles : public testing::Test {
 protected:
  void Make(const std::string& name) {
    std::filesystem::create_directories((folder_.path() / name).parent_path());
    WriteFileAtomically(folder_.path() / name, "x");
  }
  std::string Find(const std::string& split, const std::string& data_dir = "", const std::string& name = "") {
    std::string found;
    for (const auto& path : FindSplitFiles({folder_.path().string(), data_dir, name}, split, "train_split"))
      found += path.lexically_relative(folder_.path()).string() + " ";
    return found;
  }
  std::string MessageOf(const std::string& split, const std::string& data_dir = "") {
    try {
      Find(split, data_dir);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return e.what();
    }
    return "";
  }
  TemporaryFolder folder_;
};

TEST_F(SplitFiles, AsTheHubLaysThemOut) {
  for (const char* name :
       {"README.md", "train.txt", ".cache/train.jsonl", "data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet",
        "data/train_gen-00000-of-00001.parquet", "data/test.jsonl.zst", "main/train.json", "en/train/0000.parquet"})
    Make(name);
  EXPECT_EQ(Find("train"), "data/train-00000-of-00002.parquet data/train-00001-of-00002.parquet ");
  EXPECT_EQ(Find("train_g"), "data/train_gen-00000-of-00001.parquet ") << "a beginning will do where no name is the split's own";
  EXPECT_EQ(Find("test"), "data/test.jsonl.zst ");
  EXPECT_EQ(Find("train", "main"), "main/train.json ");
  EXPECT_EQ(Find("train", "", "en"), "en/train/0000.parquet ");
  Make("train.jsonl");
  EXPECT_EQ(Find("train"), "train.jsonl ") << "the folder itself comes first";
  EXPECT_EQ(FindSplitFiles({(folder_.path() / "data/test.jsonl.zst").string(), "", ""}, "train", "train_split").size(), 1u);
}

TEST_F(SplitFiles, WhatIsMissingIsNamed) {
  Make("train.jsonl");
  EXPECT_NE(MessageOf("validation").find("train_split=validation"), std::string::npos);
  EXPECT_NE(MessageOf("train", "absent").find("hf_data_dir=absent"), std::string::npos);
  const HubData one_file{(folder_.path() / "train.jsonl").string(), "", ""};
  EXPECT_THROW(FindSplitFiles(one_file, "test", "hf_eval_split"), Error) << "training reads it";
  EXPECT_THROW(FindSplitFiles({"HuggingFaceH4/ultrachat_200k", "", ""}, "train", "train_split"), Error);
}

}  // namespace
}  // namespace fathom

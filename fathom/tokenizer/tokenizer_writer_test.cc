#include "fathom/tokenizer/tokenizer_writer.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/testing/folder.h"
#include "fathom/tokenizer/test_data.h"
#include "fathom/tokenizer/tokenizer.h"

namespace fathom {
namespace {

// Trained on the same text as the library's file: the same ids for every string.
TEST(TokenizerWriter, WrittenFolderEncodesAsTheLibrarysFile) {
  const PreTokenizer pre_tokenizer = PreTokenizer::DeepSeekV3();
  WordCounts counts;
  CountWords(ReadTextFile(TokenizerTestData() / "train.txt"), pre_tokenizer, counts);
  const TemporaryFolder folder;
  WriteTokenizer(folder.path() / "a" / "b", TrainBpe(counts, 600, {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"}), pre_tokenizer);
  const Tokenizer tokenizer = Tokenizer::Load(folder.path() / "a" / "b");
  EXPECT_EQ(tokenizer.bos_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 1);
  EXPECT_TRUE(tokenizer.IsSpecial(0));
  int compared = 0;
  for (const Json& row : TokenizerTestRows("encode_deepseek.jsonl")) {
    const auto ids = row.value("ordinary", row["ids"]).get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.Encode(row["text"].get_ref<const std::string&>(), {.added_tokens = false}), ids);
    ++compared;
  }
  EXPECT_GT(compared, 400);
}

TEST(TokenizerWriter, FilesAreWellFormed) {
  const Json file = ParseJson(TokenizerJson(TrainBpe({{"a\"b", 2}}, 300, {"\"q\"\n"}),
                                            PreTokenizer::FromJson({{"type", "ByteLevel"}, {"add_prefix_space", false}}, "file")),
                              "file");
  EXPECT_EQ(file["model"]["vocab"]["\"q\"\n"], 0);
  EXPECT_EQ(file["model"]["merges"][0], "\" b");
  EXPECT_EQ(file["added_tokens"][0]["content"], "\"q\"\n");
}

TEST(TokenizerWriter, WithoutSpecialTokensThereIsNoBos) {
  const TemporaryFolder folder;
  WriteTokenizer(folder.path(), TrainBpe({}, 256, {}), PreTokenizer::DeepSeekV3());
  EXPECT_FALSE(Tokenizer::Load(folder.path()).bos_id());
}

TEST(TokenizerWriter, AFileInTheWayIsAnError) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder.path() / "file", "x");
  EXPECT_THROW(WriteTokenizer(folder.path() / "file", TrainBpe({}, 256, {}), PreTokenizer::DeepSeekV3()), Error);
}

}  // namespace
}  // namespace fathom

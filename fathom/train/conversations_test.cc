#include "fathom/train/conversations.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

constexpr const char* kRow =
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}, {"role": "user", "content": "d"},
                     {"role": "assistant", "content": ""}, {"role": "user", "content": "e"}]})";

std::shared_ptr<const Tokenizer> TestTokenizer() {
  static const auto tokenizer =
      std::make_shared<const Tokenizer>(Tokenizer::Load(std::filesystem::path(FATHOM_TEST_DATA) / "tokenizer" / "deepseek"));
  return tokenizer;
}

Sample Make(const ConversationConfig& config, const std::string& row = kRow) {
  return ConversationSampler(config, TestTokenizer())(Document{.text = row, .ends = true});
}

// The text of the tokens that are learned.
std::string Learned(const Sample& sample) {
  std::string text;
  for (size_t i = 0; i < sample.ids.size(); ++i) {
    if (sample.mask[i] != 0) text += TestTokenizer()->TokenBytes(sample.ids[i]);
  }
  return text;
}

TEST(ConversationSampler, LearnsAnswersOrEverythingButBos) {
  const Sample answers = Make({.length = 1000});
  EXPECT_EQ(answers.fate, Sample::kWhole);
  EXPECT_EQ(Learned(answers), "b c<｜end▁of▁sentence｜><｜end▁of▁sentence｜>");
  EXPECT_EQ(Learned(Make({.completion_only = false, .length = 1000})),
            "<｜User｜>a<｜Assistant｜>b c<｜end▁of▁sentence｜><｜User｜>d<｜Assistant｜><｜end▁of▁sentence｜><｜User｜>e");
}

TEST(ConversationSampler, RoundsAloneBeginWithBosEach) {
  const Sample rounds = Make({.completion_only = false, .rounds_alone = true, .length = 1000});
  EXPECT_EQ(std::ranges::count(rounds.ids, *TestTokenizer()->bos_id()), 3);
  EXPECT_EQ(Learned(rounds).find("begin"), std::string::npos);
}

TEST(ConversationSampler, CutsOrLeavesOutWhatIsTooLong) {
  const auto size = static_cast<int64_t>(Make({.length = 1000}).ids.size());
  EXPECT_EQ(Make({.truncate = false, .length = size}).fate, Sample::kWhole);
  EXPECT_EQ(Make({.truncate = false, .length = size - 1}).fate, Sample::kTooLong);
  const Sample cut = Make({.length = size - 1});
  EXPECT_EQ(cut.fate, Sample::kTruncated);
  EXPECT_EQ(std::ssize(cut.ids), size - 1);
  EXPECT_EQ(cut.mask.size(), cut.ids.size());
  EXPECT_EQ(Make({.length = 3}).fate, Sample::kWithoutTarget);
  EXPECT_EQ(Make({.length = 100}, R"({"messages": [{"role": "user", "content": "a"}]})").fate, Sample::kWithoutTarget);
}

TEST(ConversationSampler, V32RendersTheReasoningThatIsThere) {
  const ConversationConfig config{.which = ChatTemplate::kV32, .length = 1000};
  const std::string head = R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b")";
  EXPECT_EQ(Learned(Make(config, head + R"(, "reasoning_content": "r"}]})")), "r</think>b<｜end▁of▁sentence｜>");
  EXPECT_EQ(Learned(Make(config, head + "}]}")), "b<｜end▁of▁sentence｜>");
}

TEST(CheckFirstRows, NamesTheRow) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.jsonl";
  WriteFileAtomically(path, R"({"messages": [{"role": "user", "content": "a"}]})"
                            "\n"
                            R"({"messages": [{"role": "user"}]})"
                            "\n");
  StreamConfig stream;
  stream.files = {path};
  stream.row_columns = RowColumns({"messages"});
  try {
    CheckFirstRows({}, stream, false);
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("a.jsonl, line 2: message 0"), std::string::npos) << e.what();
  }
  CheckFirstRows({}, stream, true);
}

}  // namespace
}  // namespace fathom

#include "fathom/tokenizer/trainer.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/tokenizer/test_data.h"

namespace fathom {
namespace {

using Merges = std::vector<std::vector<std::string>>;

const PreTokenizer kDeepSeek = PreTokenizer::DeepSeekV3();

Merges Learn(const WordCounts& counts, int64_t vocab_size, const std::vector<std::string>& special = {"<s>", "</s>"}) {
  const TrainedBpe bpe = TrainBpe(counts, vocab_size, special);
  const auto name = [&](int32_t id) { return bpe.tokens[static_cast<size_t>(id)]; };
  Merges merges;
  for (const BpeMerge& m : bpe.merges) {
    merges.push_back({name(m.left), name(m.right)});
    EXPECT_EQ(name(m.joined), name(m.left) + name(m.right));
  }
  return merges;
}

TEST(Trainer, SameMergesAsTheLibrary) {
  const std::string text = ReadTextFile(TokenizerTestData() / "train.txt");
  const Json expected = ReadJsonFile(TokenizerTestData() / "train.json");
  WordCounts counts;
  CountWords(text, kDeepSeek, counts);
  EXPECT_EQ(Learn(counts, expected["vocab_size"].get<int64_t>(), expected["special"].get<std::vector<std::string>>()),
            expected["merges"].get<Merges>());
}

TEST(Trainer, EachLineIsATextOfItsOwn) {
  WordCounts counts;
  CountWords("a \n b  \nb", kDeepSeek, counts);
  EXPECT_EQ(counts, (WordCounts{{"a", 1}, {" \n", 1}, {" b", 1}, {"  \n", 1}, {"b", 1}}));
}

// More than one chunk per thread; counts of two calls add up.
TEST(Trainer, CountsDoNotDependOnThreads) {
  const std::string piece = ReadTextFile(TokenizerTestData() / "train.txt");
  std::string text;
  while (text.size() < 5'000'000) text += piece;
  WordCounts one, many, twice;
  SetThreads(1);
  CountWords(text, kDeepSeek, one);
  SetThreads(4);
  CountWords(text, kDeepSeek, many);
  EXPECT_EQ(one, many);
  const size_t half = text.find('\n', text.size() / 2) + 1;
  CountWords(std::string_view(text).substr(0, half), kDeepSeek, twice);
  CountWords(std::string_view(text).substr(half), kDeepSeek, twice);
  EXPECT_EQ(one, twice);
}

TEST(Trainer, TiesGoToTheSmallerIds) {
  EXPECT_EQ(Learn({{"cd", 5}, {"ab", 5}, {"ac", 5}}, 261), (Merges{{"a", "b"}, {"a", "c"}, {"c", "d"}}));
}

TEST(Trainer, MergesGoLeftToRightWithoutOverlap) {
  EXPECT_EQ(Learn({{"aaaaa", 1}}, 300), (Merges{{"a", "a"}, {"aa", "a"}, {"aa", "aaa"}}));
  EXPECT_EQ(Learn({{"aaaaaaa", 1}}, 300), (Merges{{"a", "a"}, {"aa", "aa"}, {"aa", "a"}, {"aaaa", "aaa"}}));
}

TEST(Trainer, JoinedStringThatIsATokenKeepsItsId) {
  const TrainedBpe bpe = TrainBpe({{"ab", 3}}, 300, {"ab", "x"});
  ASSERT_EQ(bpe.merges.size(), 1u);
  EXPECT_EQ(bpe.merges[0].joined, 0);
  EXPECT_EQ(bpe.tokens.size(), 257u);  // "x" is a byte's stand-in too
}

TEST(Trainer, StopsWhenNothingIsLeft) { EXPECT_EQ(Learn({{"abc", 1}}, 100000), (Merges{{"a", "b"}, {"ab", "c"}})); }

TEST(Trainer, IdsFollowTheStandIns) {
  const TrainedBpe bpe = TrainBpe({}, 258, {"<s>", "</s>"});
  EXPECT_EQ(bpe.tokens[2], "!");
  EXPECT_EQ(bpe.tokens[257], "\u0143");
}

TEST(Trainer, RefusesImpossibleRequests) {
  EXPECT_THROW((void)TrainBpe({}, 257, {"<s>", "</s>"}), Error);
  EXPECT_THROW((void)TrainBpe({}, int64_t{1} << 40, {}), Error);
  EXPECT_THROW((void)TrainBpe({}, 300, {"<s>", "<s>"}), Error);
  EXPECT_THROW((void)TrainBpe({}, 300, {""}), Error);
  EXPECT_THROW((void)TrainBpe({}, 300, {"\xFF"}), Error);
}

}  // namespace
}  // namespace fathom

#include "fathom/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "fathom/base/clock.h"

namespace fathom {
namespace {

std::array<int32_t, 256> Identity() {
  std::array<int32_t, 256> ids{};
  for (int b = 0; b < 256; ++b) ids[static_cast<size_t>(b)] = b;
  return ids;
}

std::vector<int32_t> Encode(const BpeModel& bpe, const std::string& piece) {
  BpeModel::Scratch scratch;
  std::vector<int32_t> ids;
  bpe.Encode(piece, scratch, ids);
  return ids;
}

// The definition, word for word: as long as a pair can merge, merge the leftmost of the lowest rank.
std::vector<int32_t> Slow(const std::vector<BpeMerge>& merges, const std::string& piece) {
  std::map<std::pair<int32_t, int32_t>, size_t> rank;
  for (size_t i = 0; i < merges.size(); ++i) rank[{merges[i].left, merges[i].right}] = i;
  std::vector<int32_t> s;
  for (const char c : piece) s.push_back(static_cast<unsigned char>(c));
  while (true) {
    size_t best = merges.size(), at = 0;
    for (size_t i = 0; i + 1 < s.size(); ++i) {
      const auto it = rank.find({s[i], s[i + 1]});
      if (it != rank.end() && it->second < best) best = it->second, at = i;
    }
    if (best == merges.size()) return s;
    s[at] = merges[best].joined;
    s.erase(s.begin() + static_cast<int64_t>(at) + 1);
  }
}

// Merges of random pairs over two letters; some results are reached by several merges.
std::vector<BpeMerge> RandomMerges(std::mt19937& rnd) {
  std::vector<int32_t> tokens = {'a', 'b'};
  std::vector<BpeMerge> merges;
  for (int32_t i = 0; i < 30; ++i) {
    const auto pick = [&] { return tokens[rnd() % tokens.size()]; };
    merges.push_back({pick(), pick(), 256 + i % 25});
    tokens.push_back(256 + i % 25);
  }
  return merges;
}

TEST(Bpe, EqualsTheDefinitionForShortAndLongPieces) {
  std::mt19937 rnd(1);
  for (int trial = 0; trial < 200; ++trial) {
    const auto merges = RandomMerges(rnd);
    const BpeModel bpe(Identity(), merges);
    std::string piece;
    for (size_t n = rnd() % 150; piece.size() < n;) piece += static_cast<char>('a' + rnd() % 2);
    ASSERT_EQ(Encode(bpe, piece), Slow(merges, piece)) << piece;
  }
}

TEST(Bpe, BytesWithoutMergeStayBytes) {
  const BpeModel bpe(Identity(), {});
  EXPECT_EQ(Encode(bpe, "ab\xFF"), (std::vector<int32_t>{'a', 'b', 255}));
  EXPECT_TRUE(Encode(bpe, "").empty());
}

TEST(Bpe, AppendsToWhatIsThere) {
  const BpeModel bpe(Identity(), {{'a', 'b', 256}});
  BpeModel::Scratch scratch;
  std::vector<int32_t> ids = {7};
  bpe.Encode("ab", scratch, ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{7, 256}));
}

// 2^18 equal bytes: a quadratic merge would take minutes.
TEST(Bpe, LongRunsAreNotQuadratic) {
  const BpeModel bpe(Identity(), {{'a', 'a', 256}, {256, 256, 257}, {257, 257, 258}});
  const Stopwatch clock;
  EXPECT_EQ(Encode(bpe, std::string(size_t{1} << 18, 'a')).size(), size_t{1} << 15);
  EXPECT_LT(clock.Seconds(), 10);
}

}  // namespace
}  // namespace fathom

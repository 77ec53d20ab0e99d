#include "fathom/tokenizer/piece_cache.h"

#include <gtest/gtest.h>

#include <string>

namespace fathom {
namespace {

using namespace std::string_literals;

TEST(PieceCache, ReturnsWhatWasPut) {
  PieceCache cache;
  std::vector<int32_t> ids = {9};
  EXPECT_FALSE(cache.Append(PieceCache::MakeKey(" word"), ids));
  const std::vector<int32_t> put = {1, 2};
  cache.Put(PieceCache::MakeKey(" word"), put.data(), put.size());
  EXPECT_TRUE(cache.Append(PieceCache::MakeKey(" word"), ids));
  EXPECT_EQ(ids, (std::vector<int32_t>{9, 1, 2}));
}

// Keys are padded with zeros, so pieces that end in NUL differ by their length only.
TEST(PieceCache, TellsTrailingNulsApart) {
  PieceCache cache;
  std::vector<int32_t> ids;
  const int32_t id = 1;
  cache.Put(PieceCache::MakeKey("a"), &id, 1);
  EXPECT_FALSE(cache.Append(PieceCache::MakeKey("a\0"s), ids));
  EXPECT_FALSE(cache.Append(PieceCache::MakeKey("\0"s), ids));
}

TEST(PieceCache, KeepsNoMoreTokensThanFit) {
  PieceCache cache;
  const std::vector<int32_t> many(PieceCache::kMaxTokens + 1, 5);
  cache.Put(PieceCache::MakeKey("sixteen bytes ok"), many.data(), many.size());
  std::vector<int32_t> ids;
  EXPECT_FALSE(cache.Append(PieceCache::MakeKey("sixteen bytes ok"), ids));
}

TEST(PieceCache, ManyPiecesNeverMixUp) {
  PieceCache cache;
  for (int32_t i = 0; i < 200000; ++i) cache.Put(PieceCache::MakeKey(std::to_string(i)), &i, 1);
  int hits = 0;
  for (int32_t i = 0; i < 200000; ++i) {
    std::vector<int32_t> ids;
    if (!cache.Append(PieceCache::MakeKey(std::to_string(i)), ids)) continue;
    ++hits;
    ASSERT_EQ(ids, std::vector<int32_t>{i});
  }
  EXPECT_GT(hits, 20000);
}

}  // namespace
}  // namespace fathom

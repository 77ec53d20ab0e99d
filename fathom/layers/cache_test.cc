// Blocks: counted, shared, copied when written, given back.
#include "fathom/layers/cache.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

ModelConfig Small() {
  ModelConfig c;
  c.num_hidden_layers = 2;
  c.kv_lora_rank = 6;
  c.qk_rope_head_dim = 2;
  c.index_topk = 4;
  c.index_n_heads = 1;
  c.index_head_dim = 3;
  return c;
}

float& Value(CachePool& pool, int64_t layer, int64_t row) { return pool.layer(layer).latent_rope.mutable_view().row<float>(row)[0]; }
float& Key(CachePool& pool, int64_t layer, int64_t row) { return pool.layer(layer).indexer_keys.mutable_view().row<float>(row)[0]; }

TEST(CachePool, CountsItsMemory) {
  const CachePool pool(Small(), 2, 3, DType::kF32);
  EXPECT_EQ(pool.NumBytes(), 2 * 3 * kCacheBlock * (8 + 3) * 4);
  EXPECT_EQ(pool.NumBytes(), CachePool::PlannedBytes(Small(), 2, 2 * kCacheBlock + 1, DType::kF32));
}

TEST(CachedSequence, TakesBlocksAsItGrowsAndGivesThemBack) {
  CachePool pool(Small(), 2, 3, DType::kF32);
  {
    CachedSequence s(pool);
    s.Own(0, kCacheBlock);
    EXPECT_EQ(pool.FreeBlocks(), 2);
    s.Own(kCacheBlock, kCacheBlock + 1);
    EXPECT_EQ(pool.FreeBlocks(), 1);
    s.SetLength(kCacheBlock + 1);
    s.SetLength(kCacheBlock);
    EXPECT_EQ(pool.FreeBlocks(), 2);
    const CachedSequence moved = std::move(s);
    EXPECT_EQ(pool.FreeBlocks(), 2);
  }
  EXPECT_EQ(pool.FreeBlocks(), 3);
}

TEST(CachedSequence, AForkCopiesNothingUntilItWrites) {
  CachePool pool(Small(), 2, 5, DType::kF32);
  CachedSequence s(pool);
  s.Own(0, kCacheBlock + 10);
  s.SetLength(kCacheBlock + 10);
  const int32_t whole = s.blocks()[0], last = s.blocks()[1];
  Value(pool, 0, last * kCacheBlock + 9) = 1;
  Key(pool, 1, last * kCacheBlock + 9) = 2;
  CachedSequence fork = s.Fork(kCacheBlock + 10);
  EXPECT_EQ(pool.FreeBlocks(), 3);
  EXPECT_EQ(pool.holders(whole), 2);
  fork.Own(kCacheBlock + 10, kCacheBlock + 11);
  EXPECT_EQ(pool.FreeBlocks(), 2);
  EXPECT_EQ(fork.blocks()[0], whole);
  ASSERT_NE(fork.blocks()[1], last);
  EXPECT_EQ(Value(pool, 0, fork.blocks()[1] * kCacheBlock + 9), 1);
  EXPECT_EQ(Key(pool, 1, fork.blocks()[1] * kCacheBlock + 9), 2);
  EXPECT_EQ(pool.holders(last), 1);
  s.Own(kCacheBlock + 10, kCacheBlock + 11);  // its own again
  EXPECT_EQ(s.blocks()[1], last);
}

TEST(CachedSequence, AForkMayBeShorter) {
  CachePool pool(Small(), 1, 4, DType::kF32);
  CachedSequence s(pool);
  s.Own(0, 3 * kCacheBlock);
  s.SetLength(3 * kCacheBlock);
  const CachedSequence fork = s.Fork(kCacheBlock);
  EXPECT_EQ(fork.blocks().size(), 1u);
  s.SetLength(0);
  EXPECT_EQ(pool.FreeBlocks(), 3) << "the fork's block stays";
}

TEST(CachePool, SaysWhenItIsFull) {
  CachePool pool(Small(), 1, 2, DType::kF32);
  CachedSequence s(pool);
  s.Own(0, 2 * kCacheBlock);
  try {
    s.Own(2 * kCacheBlock, 2 * kCacheBlock + 1);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kResource);
    EXPECT_NE(std::string(e.what()).find("2 blocks"), std::string::npos);
  }
}

}  // namespace
}  // namespace fathom

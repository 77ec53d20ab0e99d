#include "fathom/data/batch.h"

#include <gtest/gtest.h>

#include "fathom/data/synthetic.h"

namespace fathom {
namespace {

TEST(Batch, SegmentsAndPadding) {
  Batch batch;
  batch.Clear(2, 4);
  const std::vector<int32_t> tokens = {5, 6, 7, 8, 9};
  batch.AddSegment(0, 2, tokens.data(), tokens.data() + 1, 1);
  batch.AddSegment(2, 1, tokens.data() + 3, tokens.data() + 4, 2);
  batch.AddSegment(4, 4, tokens.data(), tokens.data() + 1, 1);
  EXPECT_EQ(batch.ids, (std::vector<int32_t>{5, 6, 8, 0, 5, 6, 7, 8}));
  EXPECT_EQ(batch.targets, (std::vector<int32_t>{6, 7, 9, 0, 6, 7, 8, 9}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 0, 0, 0, 1, 2, 3}));
  EXPECT_EQ(batch.segment_ids, (std::vector<int32_t>{1, 1, 2, 0, 1, 1, 1, 1}));
  EXPECT_EQ(batch.weights, (std::vector<float>{1, 1, 1, 0, 1, 1, 1, 1}));
  EXPECT_EQ(batch.segments, (std::vector<TokenRange>{{0, 2}, {2, 3}, {4, 8}}));
  EXPECT_EQ(batch.target_count, 7);
}

TEST(BatchDeathTest, ASegmentLiesInOneRow) {
  Batch batch;
  batch.Clear(2, 4);
  const std::vector<int32_t> tokens(4);
  EXPECT_DEATH(batch.AddSegment(2, 3, tokens.data(), tokens.data(), 1), "3 tokens at 2");
}

TEST(SyntheticSource, TheSameBatchEveryStepAndRowsByRank) {
  SyntheticSource all({.rows = 4, .length = 16, .vocab_size = 50, .seed = 3});
  SyntheticSource second({.rows = 2, .length = 16, .vocab_size = 50, .seed = 3, .rank = 1});
  SyntheticSource other({.rows = 4, .length = 16, .vocab_size = 50, .seed = 4});
  Batch a, b, c, d;
  ASSERT_TRUE(all.Next(&a) && all.Next(&b) && second.Next(&c) && other.Next(&d));
  EXPECT_EQ(a.ids, b.ids);
  EXPECT_NE(a.ids, d.ids);
  EXPECT_EQ(std::vector<int32_t>(a.ids.begin() + 32, a.ids.end()), c.ids);
  EXPECT_EQ(std::vector<int32_t>(a.targets.begin() + 32, a.targets.end()), c.targets);
  EXPECT_EQ(a.target_count, 64);
  EXPECT_EQ(std::vector<int32_t>(a.ids.begin() + 1, a.ids.begin() + 16), std::vector<int32_t>(a.targets.begin(), a.targets.begin() + 15));
  for (const int32_t id : a.ids) EXPECT_TRUE(id >= 0 && id < 50);
}

}  // namespace
}  // namespace fathom

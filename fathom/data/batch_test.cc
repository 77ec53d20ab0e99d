#include "fathom/data/batch.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace fathom

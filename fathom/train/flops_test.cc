#include "fathom/train/flops.h"

#include <gtest/gtest.h>

#include "fathom/model/tiny_config.h"

namespace fathom {
namespace {

// Two layers, 12 tokens, 2 heads of 14 / 10, so that a pair costs 96; the indexer's 14 heads of 8 on a width of 24 and a query rank of 16.
TEST(TrainFlops, SparseAttentionIsOfTheChosenKeysAndHasAnIndexer) {
  ModelConfig sparse = TinyConfig(ModelFamily::kV32, 41), dense = sparse;
  dense.index_topk = 12;
  const double spared = (0.5 - 0.375) * 12 * 96;  // half of the keys: 3/8 of all pairs instead of 1/2
  const double indexer = 2 * (16 * 112 + 24 * 8 + 24 * 14) + 12 * 14 * (8 + 1);
  EXPECT_DOUBLE_EQ(TrainFlopsPerToken(sparse, 12, 0) - TrainFlopsPerToken(dense, 12, 0), 3 * 2 * (indexer - spared));
  EXPECT_DOUBLE_EQ(TrainFlopsPerToken(dense, 12, 0), TrainFlopsPerToken(TinyConfig(ModelFamily::kV3, 41), 12, 0));
}

}  // namespace
}  // namespace fathom

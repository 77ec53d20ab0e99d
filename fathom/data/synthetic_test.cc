#include "fathom/data/synthetic.h"

#include <gtest/gtest.h>

#include <vector>

namespace fathom {
namespace {

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

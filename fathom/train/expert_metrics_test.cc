#include "fathom/train/expert_metrics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fathom {
namespace {

TEST(ExpertLoad, TellsBalancedFromIdle) {
  const std::vector<int64_t> even(4, 7), one{0, 12, 0, 0}, two{6, 6, 0, 0};
  EXPECT_DOUBLE_EQ(LoadOf(even).max_to_mean, 1);
  EXPECT_DOUBLE_EQ(LoadOf(even).entropy, 1);
  EXPECT_DOUBLE_EQ(LoadOf(one).max_to_mean, 4);
  EXPECT_DOUBLE_EQ(LoadOf(one).entropy, 0);
  EXPECT_DOUBLE_EQ(LoadOf(two).max_to_mean, 2);
  EXPECT_DOUBLE_EQ(LoadOf(two).entropy, 0.5);
}

TEST(ExpertLoad, NothingCountedIsNotNaN) { EXPECT_EQ(LoadOf(std::vector<int64_t>(3)).max_to_mean, 0); }

}  // namespace
}  // namespace fathom

#include "fathom/base/nearest.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(NearestName, FindsTypingErrors) {
  const std::vector<std::string> names = {"steps", "dtype", "learning_rate", "log_period"};
  EXPECT_EQ(NearestName("step", names), "steps");
  EXPECT_EQ(NearestName("dtpye", names), "dtype");
  EXPECT_EQ(NearestName("learing_rate", names), "learning_rate");
  EXPECT_EQ(NearestName("", names), "steps");
  EXPECT_EQ(NearestName("steps", {}), "");
  EXPECT_EQ(NearestName("ab", {"xb", "ba", "ax"}), "xb");
}

}  // namespace
}  // namespace fathom

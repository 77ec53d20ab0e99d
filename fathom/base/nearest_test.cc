#include "fathom/base/nearest.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(NearestName, FindsTypingErrors) {
  const std::vector<std::string> names = {"steps", "dtype", "learning_rate", "log_period"};
  EXPECT_EQ(NearestName("step", names), "steps");
  EXPECT_EQ(NearestName("dtpye", names), "dtype");
  EXPECT_EQ(NearestName("learing_rate", names), "learning_rate");
  EXPECT_EQ(NearestName("lerning_ratee", names), "learning_rate");
  EXPECT_EQ(NearestName("steps", {}), "");
  EXPECT_EQ(NearestName("ab", {"xb", "ba", "ax"}), "xb");
}

TEST(NearestName, IsSilentWhereNoneIsNear) {
  EXPECT_EQ(NearestName("", {"steps"}), "");
  EXPECT_EQ(NearestName("sft", {"train", "tokenizer train"}), "");
  EXPECT_EQ(NearestName("python3", {"convert", "config"}), "");
  EXPECT_EQ(NearestName("llama3-8b", {"deepseek2-16b", "deepseek3-671b"}), "");
  EXPECT_EQ(NearestName("deepseek4-284b", {"deepseek2-236b", "deepseek3-671b"}), "");
  EXPECT_EQ(DidYouMean("confg", {"convert", "config"}), "; did you mean config?");
  EXPECT_EQ(DidYouMean("sft", {"convert", "config"}), "");
}

}  // namespace
}  // namespace fathom

#include "fathom/infer/stop_filter.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(StopFilter, PassesTextThrough) {
  StopFilter filter({});
  EXPECT_EQ(filter.Push("abc"), "abc");
  EXPECT_EQ(filter.Flush(), "");
  EXPECT_FALSE(filter.stopped());
}

TEST(StopFilter, CutsBeforeAStopThatComesInPieces) {
  StopFilter filter({"END", "xyz"});
  EXPECT_EQ(filter.Push("one E"), "one ");
  EXPECT_EQ(filter.Push("N"), "");
  EXPECT_EQ(filter.Push("D two"), "");
  EXPECT_TRUE(filter.stopped());
  EXPECT_EQ(filter.Push("three"), "");
  EXPECT_EQ(filter.Flush(), "");
}

TEST(StopFilter, GivesBackAFalseStart) {
  StopFilter filter({"END"});
  EXPECT_EQ(filter.Push("EN"), "");
  EXPECT_EQ(filter.Push("GINE E"), "ENGINE ");
  EXPECT_EQ(filter.Flush(), "E");
}

TEST(StopFilter, TakesTheEarliestOfSeveral) {
  StopFilter filter({"cd", "b"});
  EXPECT_EQ(filter.Push("abcd"), "a");
  EXPECT_TRUE(filter.stopped());
}

}  // namespace
}  // namespace fathom

#include "fathom/parquet/levels.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fathom {
namespace {

using namespace std::string_literals;

std::vector<uint32_t> Take(RunLengthReader reader, size_t most) {
  std::vector<uint32_t> values;
  for (uint32_t value; values.size() < most && reader.Next(&value);) values.push_back(value);
  return values;
}

TEST(RunLength, RunsAndPackedGroups) {
  // five times 3; then eight values of three bits, 0 to 7 (the example of Parquet's specification).
  const std::string bytes = "\x0a\x03\x03\x88\xc6\xfa"s;
  EXPECT_EQ(Take({bytes, 3}, 99), (std::vector<uint32_t>{3, 3, 3, 3, 3, 0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(Take({"\x06"s, 0}, 99), (std::vector<uint32_t>{0, 0, 0}));
  EXPECT_EQ(Take({"\x05\x01"s, 1}, 99), (std::vector<uint32_t>{1, 0, 0, 0, 0, 0, 0, 0})) << "two groups, the second cut off";
  EXPECT_EQ(Take({"", 3}, 99), std::vector<uint32_t>{});
  EXPECT_EQ(Take({"\x0a"s, 3}, 99), std::vector<uint32_t>{}) << "a run without its value";
  EXPECT_EQ(Take({"\xff\xff\xff\xff\xff\xff\xff\xff\xff"s, 3}, 99), std::vector<uint32_t>{}) << "a head without an end";
}

TEST(Delta, TheExamplesOfTheSpecification) {
  // 1, 2, 3, 4, 5: block of 128, 4 mini blocks, 5 values, first 1, least difference 1, widths 0.
  const std::string five = "\x80\x01\x04\x05\x02\x02\0\0\0\0"s;
  DeltaReader ones(five);
  for (int64_t want = 1, got; want <= 5; ++want) {
    ASSERT_TRUE(ones.Next(&got));
    EXPECT_EQ(got, want);
  }
  int64_t none;
  EXPECT_FALSE(ones.Next(&none));
  // 7, 5, 3, 1, 2, 3, 4, 5: least difference -2, the others 0 or 3 in two bits.
  const std::string bytes = "\x80\x01\x04\x08\x0e\x03\x02\0\0\0"s + "\xc0\x3f\0\0\0\0\0\0"s;
  DeltaReader mixed(bytes);
  for (const int64_t want : {7, 5, 3, 1, 2, 3, 4, 5}) {
    int64_t got;
    ASSERT_TRUE(mixed.Next(&got));
    EXPECT_EQ(got, want);
  }
  EXPECT_EQ(DeltaReader(bytes).SkipAll(), bytes.size());
  EXPECT_FALSE(DeltaReader("").Next(&none));
  EXPECT_FALSE(DeltaReader("\0\x04\x05\x02"s).Next(&none)) << "blocks of no value";
}

}  // namespace
}  // namespace fathom

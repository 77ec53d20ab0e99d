#include "fathom/data/csv.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

using Fields = std::vector<std::string>;

TEST(Csv, PlainFields) {
  const auto rows = ParseCsv("a,b c, d \n,\r\nlast", "x");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].fields, (Fields{"a", "b c", " d "}));
  EXPECT_EQ(rows[1].fields, (Fields{"", ""}));
  EXPECT_EQ(rows[2].fields, (Fields{"last"}));
}

TEST(Csv, QuotesHoldCommasLinesAndQuotes) {
  const auto rows = ParseCsv("\"a,\"\"b\"\"\n c\",\"\"\n\"d\"e,f\"g\"\n", "x");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].fields, (Fields{"a,\"b\"\n c", ""}));
  EXPECT_EQ(rows[1].fields, (Fields{"de", "f\"g\""}));
  EXPECT_EQ(rows[1].line, 3);
}

TEST(Csv, EmptyLinesAndByteOrderMark) {
  const auto rows = ParseCsv("\xef\xbb\xbf\n\na\r\n\r\n\"\"\n", "x");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].fields, (Fields{"a"}));
  EXPECT_EQ(rows[0].line, 3);
  EXPECT_EQ(rows[1].fields, (Fields{""}));
  EXPECT_TRUE(ParseCsv("", "x").empty());
}

TEST(Csv, AQuoteThatNeverEnds) {
  try {
    ParseCsv("a\nb,\"c\nd\n", "file.csv");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    EXPECT_NE(std::string(e.what()).find("file.csv line 2"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace fathom

#include "fathom/base/error.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

TEST(OneLine, KeepsText) { EXPECT_EQ(OneLine("a ä ｜ 🐋 ~"), "a ä ｜ 🐋 ~"); }

TEST(OneLine, ControlCharactersBecomeSpaces) {
  EXPECT_EQ(OneLine("a\nb\tc\x7f"
                    "d\x01"),
            "a b c d ");
}

TEST(OneLine, BytesThatAreNoUtf8) {
  EXPECT_EQ(OneLine("\x80"
                    "a"),
            "?a");
  EXPECT_EQ(OneLine("\xC3"), "?");
  EXPECT_EQ(OneLine("\xC3"
                    "a"),
            "?a");
  EXPECT_EQ(OneLine("\xC1\x81"), "??");  // overlong
  EXPECT_EQ(OneLine("\xE0\x81\x81"), "???");
  EXPECT_EQ(OneLine("\xED\xA0\x80"), "???");       // surrogate
  EXPECT_EQ(OneLine("\xF4\x90\x80\x80"), "????");  // beyond U+10FFFF
  EXPECT_EQ(OneLine("\xF5\x80\x80\x80"), "????");
  EXPECT_EQ(OneLine("\xF0\x9F\x90"), "???");  // cut off
}

TEST(Error, MessageIsOneLine) {
  try {
    Throw(ErrorCode::kInput, "{}: bad", "a\nb\xff");
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "a b?: bad");
    EXPECT_EQ(e.exit_code(), 3);
  }
}

}  // namespace
}  // namespace fathom

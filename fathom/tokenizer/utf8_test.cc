#include "fathom/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace fathom {
namespace {

using namespace std::string_literals;

TEST(Utf8, EveryScalarValueRoundTrips) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    AppendUtf8(code, text);
    const Utf8Step step = DecodeUtf8(text);
    ASSERT_TRUE(step.valid && step.code == code && static_cast<size_t>(step.length) == text.size()) << "U+" << std::hex << unsigned(code);
    ASSERT_EQ(CompleteUtf8Prefix(text), text.size());
    ASSERT_EQ(CompleteUtf8Prefix(text.substr(0, text.size() - 1)), 0u);
  }
}

// The examples of the Unicode standard, section 3.9, tables 3-8 to 3-11.
TEST(Utf8, OneReplacementPerMaximalSubpart) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(ToValidUtf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ToValidUtf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ToValidUtf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(ToValidUtf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
}

TEST(Utf8, KeepsBackOnlyWhatCanBecomeACharacter) {
  EXPECT_EQ(CompleteUtf8Prefix(""), 0u);
  EXPECT_EQ(CompleteUtf8Prefix("a\xE4\xBD"), 1u);
  EXPECT_EQ(CompleteUtf8Prefix("a\xF0\x9F\x98"), 1u);
  EXPECT_EQ(CompleteUtf8Prefix("a\xF0\x9F\x98\x80"), 5u);
  EXPECT_EQ(CompleteUtf8Prefix("\xE0\x80"), 2u);          // an overlong form
  EXPECT_EQ(CompleteUtf8Prefix("\xED\xA0"), 2u);          // a surrogate
  EXPECT_EQ(CompleteUtf8Prefix("\x80\x80\x80\x80"), 4u);  // no lead byte
  EXPECT_EQ(CompleteUtf8Prefix("\xE4\xBD\xA0\xC3"), 3u);
}

TEST(Utf8, TellsTruncatedFromBroken) {
  EXPECT_TRUE(DecodeUtf8("\xE4\xBD").truncated);
  EXPECT_FALSE(DecodeUtf8("\xE4\xBDx").truncated);
  EXPECT_EQ(DecodeUtf8("\xE4\xBDx").length, 2);
  EXPECT_FALSE(DecodeUtf8("\xFF").truncated);
  EXPECT_EQ(DecodeUtf8("\0"s).code, 0u);
}

}  // namespace
}  // namespace fathom

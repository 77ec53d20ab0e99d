#include "fathom/tokenizer/char_class.h"

#include <gtest/gtest.h>

#include <bit>

namespace fathom {
namespace {

TEST(CharClass, CountsOfUnicode16) {
  const auto& table = CharClassTable::Get();
  int letters = 0, marks = 0, numbers = 0, punctuation = 0, symbols = 0, spaces = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    const uint8_t k = table.Of(c);
    letters += (k & kLetter) != 0;
    marks += (k & kMark) != 0;
    numbers += (k & kNumber) != 0;
    punctuation += (k & kPunctuation) != 0;
    symbols += (k & kSymbol) != 0;
    spaces += (k & kSpace) != 0;
    ASSERT_LE(std::popcount(static_cast<unsigned>(k & ~(kCjk | kNewline))), 1) << unsigned(c);
  }
  EXPECT_EQ(letters, 141028);
  EXPECT_EQ(marks, 2501);
  EXPECT_EQ(numbers, 1911);
  EXPECT_EQ(punctuation, 855);
  EXPECT_EQ(symbols, 8514);
  EXPECT_EQ(spaces, 25);
}

TEST(CharClass, SingleCharacters) {
  const auto& table = CharClassTable::Get();
  EXPECT_EQ(table.Of('a'), kLetter);
  EXPECT_EQ(table.Of('\n'), kSpace | kNewline);
  EXPECT_EQ(table.Of(0x301), kMark);   // combining acute accent
  EXPECT_EQ(table.Of(0xB2), kNumber);  // superscript two
  EXPECT_EQ(table.Of('+'), kSymbol);
  EXPECT_EQ(table.Of('_'), kPunctuation);
  EXPECT_EQ(table.Of(0xA0), kSpace);      // no-break space
  EXPECT_EQ(table.Of(0x200B), 0);         // zero width space is no White_Space
  EXPECT_EQ(table.Of(0x1C), 0);           // nor is the file separator
  EXPECT_EQ(table.Of(0x105C0), kLetter);  // Todhri, new in Unicode 16
  EXPECT_EQ(table.Of(0x9FA5), kLetter | kCjk);
  EXPECT_EQ(table.Of(0x9FA6), kLetter);
  EXPECT_EQ(table.Of(0x30FB), kPunctuation | kCjk);  // katakana middle dot
}

TEST(CharClass, BrokenBytesHaveNoClassAndStandAlone) {
  const std::string_view text = "\xE4\xBDx";
  const auto c = CharClassTable::Get().At(text.data(), text.data() + text.size());
  EXPECT_EQ(c.classes, 0);
  EXPECT_EQ(c.length, 1);
}

}  // namespace
}  // namespace fathom

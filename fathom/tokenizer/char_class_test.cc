#include "fathom/tokenizer/char_class.h"

#include <gtest/gtest.h>

#include <bit>

namespace fathom {
namespace {

constexpr uint16_t kGeneral = kLetter | kMark | kNumber | kPunctuation | kSymbol | kSpace;

TEST(CharClass, CountsOfUnicode16) {
  const auto& table = CharClassTable::Get();
  int letters = 0, marks = 0, numbers = 0, punctuation = 0, symbols = 0, spaces = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    const uint16_t k = table.Of(c);
    letters += (k & kLetter) != 0;
    marks += (k & kMark) != 0;
    numbers += (k & kNumber) != 0;
    punctuation += (k & kPunctuation) != 0;
    symbols += (k & kSymbol) != 0;
    spaces += (k & kSpace) != 0;
    ASSERT_LE(std::popcount(static_cast<unsigned>(k & kGeneral)), 1) << unsigned(c);
  }
  EXPECT_EQ(letters, 141028);
  EXPECT_EQ(marks, 2501);
  EXPECT_EQ(numbers, 1911);
  EXPECT_EQ(punctuation, 855);
  EXPECT_EQ(symbols, 8514);
  EXPECT_EQ(spaces, 25);
}

TEST(CharClass, SingleCharacters) {
  const auto general = [](char32_t c) { return CharClassTable::Get().Of(c) & (kGeneral | kNewline | kV3Cjk); };
  EXPECT_EQ(general('a'), kLetter);
  EXPECT_EQ(general('\n'), kSpace | kNewline);
  EXPECT_EQ(general(0x301), kMark);   // combining acute accent
  EXPECT_EQ(general(0xB2), kNumber);  // superscript two
  EXPECT_EQ(general('+'), kSymbol);
  EXPECT_EQ(general('_'), kPunctuation);
  EXPECT_EQ(general(0xA0), kSpace);      // no-break space
  EXPECT_EQ(general(0x200B), 0);         // zero width space is no White_Space
  EXPECT_EQ(general(0x1C), 0);           // nor is the file separator
  EXPECT_EQ(general(0x105C0), kLetter);  // Todhri, new in Unicode 16
  EXPECT_EQ(general(0x9FA5), kLetter | kV3Cjk);
  EXPECT_EQ(general(0x9FA6), kLetter);
  EXPECT_EQ(general(0x30FB), kPunctuation | kV3Cjk);  // katakana middle dot
}

TEST(CharClass, WhatThePatternsList) {
  const auto& table = CharClassTable::Get();
  EXPECT_EQ(table.Of('a'), kLetter | kV2Letter | kV2Sign);
  EXPECT_EQ(table.Of('7'), kNumber | kDigit);
  EXPECT_EQ(table.Of(0x3000), kSpace | kV2Sign | kV2Wide);
  EXPECT_EQ(table.Of(0x1BB), kLetter);  // between two ranges
  EXPECT_EQ(table.Of(0x1E00), kLetter | kV2Letter | kV2Wide);
  EXPECT_EQ(table.Of(0xFF21), kLetter | kV2Letter | kV2Sign);  // full-width A
  EXPECT_EQ(table.Of(0xD7A3), kLetter | kV2Wide);              // the last of Hangul
  EXPECT_EQ(table.Of(0x9FA6), kLetter);
  EXPECT_EQ(table.Of(0x11DE0), kDigit);  // a digit of Unicode 17
}

TEST(CharClass, BrokenBytesHaveNoClassAndStandAlone) {
  const std::string_view text = "\xE4\xBDx";
  const auto c = CharClassTable::Get().At(text.data(), text.data() + text.size());
  EXPECT_EQ(c.classes, 0);
  EXPECT_EQ(c.length, 1);
}

}  // namespace
}  // namespace fathom

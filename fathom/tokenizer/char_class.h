// Character classes of the pre-tokenizers, as Hugging Face's library sees them (Unicode 16.0 general categories and White_Space).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "fathom/tokenizer/utf8.h"

namespace fathom {

// One bit per class; a character has at most one of the first six. Controls, format characters and unassigned ones have none of these.
enum CharClass : uint16_t {
  kLetter = 1,
  kMark = 2,
  kNumber = 4,
  kPunctuation = 8,
  kSymbol = 16,
  kSpace = 32,
  kNewline = 64,  // \r and \n
  kDigit = 128,   // what Digits takes for one: the numbers of Unicode 17.0, of which 13 are unassigned in 16.0
  // What DeepSeek's patterns list themselves (split_ranges.h).
  kV3Cjk = 256,
  kV2Wide = 512,
  kV2Sign = 1024,
  kV2Letter = 2048,
};

struct ClassifiedChar {
  uint16_t classes;  // CharClass bits
  uint16_t length;   // bytes
};

// The classes of every code point, expanded to a flat table (2.2 MB) for a look-up per character.
class CharClassTable {
 public:
  // The one table of the process.
  static const CharClassTable& Get();

  uint16_t Of(char32_t code) const { return classes_[code]; }
  // The character at p < end. A broken byte has no class and length 1.
  ClassifiedChar At(const char* p, const char* end) const {
    const auto byte = static_cast<unsigned char>(*p);
    if (byte < 0x80) return {classes_[byte], 1};
    const Utf8Step step = DecodeUtf8({p, static_cast<size_t>(end - p)});
    if (!step.valid) return {0, 1};
    return {classes_[step.code], static_cast<uint16_t>(step.length)};
  }

 private:
  CharClassTable();
  std::vector<uint16_t> classes_;
};

}  // namespace fathom

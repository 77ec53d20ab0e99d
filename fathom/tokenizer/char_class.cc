#include "fathom/tokenizer/char_class.h"

#include <span>

#include "fathom/tokenizer/split_ranges.h"
#include "fathom/tokenizer/unicode_tables.h"

namespace fathom {

const CharClassTable& CharClassTable::Get() {
  static const CharClassTable table;
  return table;
}

CharClassTable::CharClassTable() : classes_(0x110000, 0) {
  const auto mark = [this](uint16_t bit, std::span<const unicode_tables::Range> ranges) {
    for (const auto& range : ranges) {
      for (uint32_t c = range.first; c <= range.last; ++c) classes_[c] |= bit;
    }
  };
  mark(kLetter, unicode_tables::kLetter);
  mark(kMark, unicode_tables::kMark);
  mark(kNumber, unicode_tables::kNumber);
  mark(kPunctuation, unicode_tables::kPunctuation);
  mark(kSymbol, unicode_tables::kSymbol);
  mark(kSpace, unicode_tables::kSpace);
  mark(kDigit, unicode_tables::kNumber);
  mark(kDigit, kNewNumberRanges);
  mark(kNewline, kNewlineRanges);
  mark(kV3Cjk, kV3CjkRanges);
  mark(kV2Wide, kV2WideRanges);
  mark(kV2Sign, kV2SignRanges);
  mark(kV2Letter, kV2LetterRanges);
}

}  // namespace fathom

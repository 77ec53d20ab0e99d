// The steps of a pre-tokenizer: hand-written, linear matchers for the patterns that DeepSeek's tokenizers (and GPT-2's) use.
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include "fathom/tokenizer/char_class.h"

namespace fathom {

enum class SplitKind {
  kRun,              // [classes]+, [classes]{1,most}, \s?[classes]+
  kTrailingSpace,    // \s+$
  kDeepSeekV3Words,  // the last of DeepSeek-V3's Splits
  kGpt2Words,        // ByteLevel's own pattern
};

// How one step cuts a text: each match of its pattern is a piece, and so is what lies between two matches.
struct SplitStage {
  SplitKind kind;
  // Of a kRun:
  uint16_t classes = 0;                              // CharClass bits: a character with any of them belongs to the run
  size_t most = std::numeric_limits<size_t>::max();  // characters of a match
  bool after_space = false;                          // one white space before the run belongs to it
};

// The length in bytes of the first piece of text, which is not empty: the pieces are found by calling this on what remains. It looks a
// bounded number of times at each character of this piece and the next one. Broken UTF-8 is taken byte by byte as characters of no class.
size_t FirstPiece(const SplitStage& stage, const CharClassTable& classes, std::string_view text);

}  // namespace fathom

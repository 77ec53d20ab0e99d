// Cuts text into the pieces within which BPE merges: hand-written, linear matchers for the patterns that DeepSeek's tokenizers use.
#pragma once

#include <string>
#include <string_view>

#include "fathom/base/json.h"
#include "fathom/tokenizer/char_class.h"

namespace fathom {

class PreTokenizer {
 public:
  enum class Kind {
    kDeepSeekV3,  // three Splits in sequence (numbers, CJK, the rest), each inside the pieces of the one before, then ByteLevel
    kGpt2,        // ByteLevel with its own pattern
    kWhole,       // ByteLevel without a pattern: the whole text is one piece
  };

  explicit PreTokenizer(Kind kind) : kind_(kind), classes_(&CharClassTable::Get()) {}
  // From the "pre_tokenizer" entry of a tokenizer.json; where names the file. Throws Error(kInput) for anything but the above.
  static PreTokenizer FromJson(const Json& entry, const std::string& where);
  // The entry that FromJson reads and Hugging Face's tokenizers library loads.
  Json ToJson() const;

  Kind kind() const { return kind_; }
  // The length in bytes of the piece at the start of text, which is not empty. The pieces of a text are found by calling this on what
  // remains. Broken UTF-8 is taken byte by byte as characters of no class.
  size_t PieceLength(std::string_view text) const;

 private:
  Kind kind_;
  const CharClassTable* classes_;
};

}  // namespace fathom

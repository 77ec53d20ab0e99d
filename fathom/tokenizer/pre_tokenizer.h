// Cuts text into the pieces within which BPE merges: the steps of a tokenizer.json's "pre_tokenizer", each inside the pieces of the one
// before.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/base/json.h"
#include "fathom/tokenizer/split_stage.h"

namespace fathom {

class PreTokenizer {
 public:
  static constexpr size_t kMaxStages = 8;

  // From the "pre_tokenizer" entry of a tokenizer.json; where names the file. Known are ByteLevel, with or without its own pattern, and
  // before it Digits and isolating Splits with the patterns of DeepSeek's tokenizers. Throws Error(kInput) for anything else.
  static PreTokenizer FromJson(const Json& entry, const std::string& where);
  // DeepSeek-V3's, which new vocabularies are trained with.
  static PreTokenizer DeepSeekV3();

  // The entry that it was read from.
  const Json& ToJson() const { return json_; }
  const std::vector<SplitStage>& stages() const { return stages_; }

 private:
  PreTokenizer() = default;
  Json json_;
  std::vector<SplitStage> stages_;  // at most kMaxStages
};

// Walks through the pieces of one text.
class PieceCursor {
 public:
  // Both must outlive the cursor.
  PieceCursor(const PreTokenizer& pre_tokenizer, std::string_view text);
  // The next piece; empty at the end of the text. Broken UTF-8 is taken byte by byte as characters of no class.
  std::string_view Next();

 private:
  const std::vector<SplitStage>& stages_;
  const CharClassTable& classes_;
  std::string_view text_;
  size_t at_ = 0;
  // ends_[0]: where the text ends, ends_[i + 1]: where the piece of stage i ends in which at_ lies, at_ itself if that is used up.
  std::array<size_t, PreTokenizer::kMaxStages + 1> ends_;
};

}  // namespace fathom

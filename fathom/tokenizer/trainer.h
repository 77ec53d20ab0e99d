// Learns a byte-level BPE vocabulary from text, merge for merge as Hugging Face's BpeTrainer does.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fathom/tokenizer/bpe.h"
#include "fathom/tokenizer/pre_tokenizer.h"

namespace fathom {

struct StringHash {
  using is_transparent = void;
  size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};

// Pieces of the pre-tokenizer (bytes) and how often each occurs.
using WordCounts = std::unordered_map<std::string, int64_t, StringHash, std::equal_to<>>;

// Adds the pieces of text to counts. Each line with its '\n' is a text of its own. Uses NumThreads() threads.
void CountWords(std::string_view text, const PreTokenizer& pre_tokenizer, WordCounts& counts);

struct TrainedBpe {
  std::vector<std::string> tokens;  // by id, as tokenizer.json spells them: special tokens, the byte stand-ins by code point, merges
  int64_t special_tokens;           // the first so many of tokens
  std::vector<BpeMerge> merges;     // in order of rank
};

// Merges the most frequent adjacent pair until there are vocab_size tokens or no pair is left; of equal counts the smaller left id, then
// the smaller right id. Within a word merges go left to right without overlap. A joined string that is a token already keeps its id.
// Throws Error(kUsage): vocab_size without room for the special tokens and 256 bytes, or above 2^22; a special token
// that is empty, not UTF-8 or stands twice.
TrainedBpe TrainBpe(const WordCounts& counts, int64_t vocab_size, const std::vector<std::string>& special_tokens);

}  // namespace fathom

// Reads the JSON of a tokenizer.json in one pass: its two large parts, vocabulary and merges, go straight into arrays.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fathom/base/json.h"

namespace fathom {

struct RawMerge {
  std::string joined;  // left + right
  size_t left_length;
};

struct RawTokenizer {
  Json rest;                                             // the file without model.vocab and model.merges
  std::vector<std::pair<std::string, Json>> vocabulary;  // in the order of the file; values as they stand
  std::vector<RawMerge> merges;                          // from "a b" or ["a", "b"]
};

// where: the file's name for errors. Throws Error(kInput): not JSON, deeper than 64, a key twice in one object (keys of the vocabulary
// are not compared here), model.vocab not an object of numbers, model.merges not an array of pairs; either absent.
RawTokenizer ParseTokenizerJson(std::string_view text, const std::string& where);

// A value for an error line, cut to a readable length.
std::string QuoteJson(const Json& value);

}  // namespace fathom

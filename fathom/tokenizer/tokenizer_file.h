// What a tokenizer.json (Hugging Face tokenizers' format) and the tokenizer_config.json beside it say, checked.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "fathom/tokenizer/added_tokens.h"
#include "fathom/tokenizer/bpe.h"
#include "fathom/tokenizer/pre_tokenizer.h"

namespace fathom {

struct TokenizerFile {
  std::vector<std::string> token_bytes;  // by id: what the token decodes to; empty where no token has the id
  std::array<int32_t, 256> byte_ids;     // token of each byte; -1: none, which only bytes that never stand in UTF-8 may have
  std::vector<BpeMerge> merges;          // in order of rank
  std::vector<AddedToken> added;
  PreTokenizer pre_tokenizer;
};

// text: the content of a tokenizer.json, where: its name in errors. Accepts a byte-level BPE without normaliser, in the two spellings
// of merges ("a b" and ["a", "b"]). The post-processor is ignored: it only adds special tokens, which Tokenizer::Encode does on request.
// Throws Error(kInput): not JSON, a part that is not supported, an id that is negative, above 2^22 or stands for two tokens, a byte
// of UTF-8 without token, a merge whose parts or result are no tokens.
TokenizerFile ParseTokenizerFile(std::string_view text, const std::string& where);

struct TokenizerConfig {
  std::string bos_token, eos_token;  // "": none
  bool add_bos_token = false;
};

// Defaults if the file is absent. Throws Error(kInput) if it is not an object or an entry has the wrong type.
TokenizerConfig ReadTokenizerConfig(const std::filesystem::path& path);

}  // namespace fathom

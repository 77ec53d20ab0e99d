// Text to tokens and back, as Hugging Face's tokenizers library does it for DeepSeek's files: byte-level BPE. docs/tokenizer.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

struct TokenizerFile;
struct TokenizerConfig;

struct EncodeOptions {
  bool add_bos = false;      // the token bos_id() first
  bool added_tokens = true;  // <｜User｜> and the like in the text become their tokens; false: they are ordinary text
};

// Immutable; every const member may be called from many threads at once.
class Tokenizer {
 public:
  // path: a folder that holds tokenizer.json, or the file itself. tokenizer_config.json is read where it lies beside.
  // Throws Error(kInput) as ParseTokenizerFile and ReadTokenizerConfig do.
  static Tokenizer Load(const std::filesystem::path& path);
  Tokenizer(TokenizerFile file, const TokenizerConfig& config);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // text: UTF-8; bytes that are not become the tokens of these bytes, so that Decode's bytes are always the text's. Where the vocabulary
  // has no token for one of them (DeepSeek-V2's has none for bytes that never stand in UTF-8), all that are not become U+FFFD.
  // Time is O(n log n) in the longest piece, linear in the rest. Throws Error(kUsage) for add_bos without a bos_id(),
  // Error(kInput) for a text of 2 GiB or more.
  std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options = {}) const;
  // Appends to ids instead.
  void EncodeTo(std::string_view text, const EncodeOptions& options, std::vector<int32_t>& ids) const;
  // Each text by itself, on NumThreads() threads; result i belongs to texts[i].
  std::vector<std::vector<int32_t>> EncodeBatch(std::span<const std::string_view> texts, const EncodeOptions& options = {}) const;

  // UTF-8; bytes that are none become U+FFFD. An id without token gives nothing. skip_special drops tokens marked special.
  std::string Decode(std::span<const int32_t> ids, bool skip_special = false) const;

  // What one id stands for, empty if no token has it. Not always whole characters.
  std::string_view TokenBytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  int32_t vocab_size() const;  // largest id + 1
  // From tokenizer_config.json; none if it is absent or names none.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  bool add_bos_token() const;  // whether tokenizer_config.json asks for BOS before every text

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

// Decodes token by token: what Push and Flush return, joined, is Decode of all ids, and no piece ends inside a character.
class StreamDecoder {
 public:
  // tokenizer must outlive the decoder.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = false) : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // The text that can be shown now: whole characters, and U+FFFD as soon as bytes cannot become one.
  std::string Push(int32_t id);
  // What is left at the end: a character that was not completed is U+FFFD.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;  // the beginning of a character
};

}  // namespace fathom

// Tokenised documents in one file, mapped when they are trained on: what `fathom tokenizer encode output=X.tokens` writes.
//
// Little-endian: "FATHOMT1", the numbers of documents and of tokens and the tokenizer's hash (u64 each), the ids (i32 each), zeros up to a
// multiple of eight bytes, and for each document the number of tokens up to its end (u64).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "fathom/base/file.h"

namespace fathom {

inline constexpr std::string_view kTokenFileMark = "FATHOMT1";

class TokenFileWriter {
 public:
  // Writes beside path; throws Error(kResource).
  TokenFileWriter(const std::filesystem::path& path, uint64_t tokenizer_hash);
  // More tokens of the document that is being written; ends closes it. An empty document is none.
  void Add(std::span<const int32_t> ids, bool ends);
  // The file is there only after this.
  void Close();
  uint64_t tokens() const { return tokens_; }
  uint64_t documents() const { return ends_.size(); }

 private:
  std::filesystem::path path_, partial_;
  OutputFile file_;
  uint64_t hash_, tokens_ = 0;
  std::vector<uint64_t> ends_;
};

class TokenFile {
 public:
  // Throws Error(kInput): no such file, cut off, documents that do not lie in it one after the other.
  static std::shared_ptr<const TokenFile> Open(const std::filesystem::path& path);
  int64_t documents() const { return std::ssize(ends_); }
  std::span<const int32_t> document(int64_t index) const;
  uint64_t tokenizer_hash() const { return hash_; }

 private:
  std::shared_ptr<MappedFile> file_;
  uint64_t hash_ = 0;
  std::span<const int32_t> tokens_;
  std::span<const uint64_t> ends_;
};

}  // namespace fathom

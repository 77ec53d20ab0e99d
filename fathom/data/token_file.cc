#include "fathom/data/token_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr uint64_t kHeaderBytes = 32;

uint64_t PaddedTokenBytes(uint64_t tokens) { return (4 * tokens + 7) / 8 * 8; }

}  // namespace

TokenFileWriter::TokenFileWriter(const std::filesystem::path& path, uint64_t tokenizer_hash)
    : path_(path), partial_(path.string() + ".partial"), file_(partial_), hash_(tokenizer_hash) {
  file_.Write(std::string(kHeaderBytes, '\0'));
}

void TokenFileWriter::Add(std::span<const int32_t> ids, bool ends) {
  file_.Write(std::as_bytes(ids));
  tokens_ += ids.size();
  if (ends && tokens_ > (ends_.empty() ? 0 : ends_.back())) ends_.push_back(tokens_);
}

void TokenFileWriter::Close() {
  Add({}, true);
  file_.Write(std::string(PaddedTokenBytes(tokens_) - 4 * tokens_, '\0'));
  file_.Write(std::as_bytes(std::span(ends_)));
  file_.WriteAt(0, std::as_bytes(std::span(kTokenFileMark.data(), kTokenFileMark.size())));
  const std::array<uint64_t, 3> numbers = {ends_.size(), tokens_, hash_};
  file_.WriteAt(kTokenFileMark.size(), std::as_bytes(std::span(numbers)));
  file_.Close();
  std::filesystem::rename(partial_, path_);
}

std::shared_ptr<const TokenFile> TokenFile::Open(const std::filesystem::path& path) {
  auto file = std::make_shared<TokenFile>();
  file->file_ = MappedFile::Open(path);
  const std::span<const std::byte> bytes = file->file_->bytes();
  std::array<uint64_t, 3> numbers = {};
  const bool marked = bytes.size() >= kHeaderBytes && std::memcmp(bytes.data(), kTokenFileMark.data(), kTokenFileMark.size()) == 0;
  if (marked) std::memcpy(numbers.data(), bytes.data() + kTokenFileMark.size(), sizeof numbers);
  const auto [documents, tokens, hash] = numbers;
  const uint64_t most = bytes.size() / 4;
  if (!marked || tokens > most || documents > most || kHeaderBytes + PaddedTokenBytes(tokens) + 8 * documents != bytes.size())
    Throw(ErrorCode::kInput, "{}: no file of tokens, or one that is cut off; fathom tokenizer encode output=X.tokens writes one",
          path.string());
  file->hash_ = hash;
  file->tokens_ = {reinterpret_cast<const int32_t*>(bytes.data() + kHeaderBytes), tokens};
  file->ends_ = {reinterpret_cast<const uint64_t*>(bytes.data() + kHeaderBytes + PaddedTokenBytes(tokens)), documents};
  if (!std::ranges::is_sorted(file->ends_) || (documents > 0 && file->ends_.back() > tokens))
    Throw(ErrorCode::kInput, "{}: damaged: its documents do not lie one after the other", path.string());
  return file;
}

std::span<const int32_t> TokenFile::document(int64_t index) const {
  const auto i = static_cast<size_t>(index);
  const uint64_t begin = i == 0 ? 0 : ends_[i - 1];
  return tokens_.subspan(begin, ends_[i] - begin);
}

}  // namespace fathom

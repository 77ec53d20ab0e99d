#include "fathom/tokenizer/tokenizer.h"

#include <algorithm>
#include <mutex>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/threads.h"
#include "fathom/tokenizer/piece_cache.h"
#include "fathom/tokenizer/tokenizer_file.h"

namespace fathom {
namespace {

// What one running Encode needs; kept for the next one, so that the cache stays warm and nothing is allocated twice.
struct Workspace {
  PieceCache cache;
  BpeModel::Scratch scratch;
};

class WorkspacePool {
 public:
  std::unique_ptr<Workspace> Take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Workspace>();
    auto workspace = std::move(free_.back());
    free_.pop_back();
    return workspace;
  }
  void Return(std::unique_ptr<Workspace> workspace) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(workspace));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_;
};

std::vector<AddedToken> Select(const std::vector<AddedToken>& tokens, bool normalized) {
  std::vector<AddedToken> out;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(out), [&](const AddedToken& t) { return t.normalized == normalized; });
  return out;
}

}  // namespace

struct Tokenizer::Impl {
  explicit Impl(TokenizerFile file)
      : token_bytes(std::move(file.token_bytes)),
        is_special(token_bytes.size(), false),
        added(std::move(file.added)),
        pre_tokenizer(file.pre_tokenizer),
        byte_ids(file.byte_ids),
        lacks_bytes(std::ranges::any_of(byte_ids, [](int32_t id) { return id < 0; })),
        bpe(file.byte_ids, file.merges),
        matchers{AddedTokenMatcher(Select(added, false)), AddedTokenMatcher(Select(added, true))} {
    for (const AddedToken& token : added) is_special[static_cast<size_t>(token.id)] = token.special;
  }

  std::optional<int32_t> FindToken(const std::string& name, const std::string& what) const;
  void CheckArguments(std::string_view text, const EncodeOptions& options) const;
  bool HasTokens(std::string_view text) const;  // for each byte
  void EncodePieces(std::string_view text, Workspace& w, std::vector<int32_t>& ids) const;
  // Text between added tokens of the matchers from number `level` on.
  void EncodeAround(size_t level, std::string_view text, Workspace& w, std::vector<int32_t>& ids) const;

  std::vector<std::string> token_bytes;
  std::vector<bool> is_special;
  std::vector<AddedToken> added;
  PreTokenizer pre_tokenizer;
  std::array<int32_t, 256> byte_ids;
  bool lacks_bytes;
  BpeModel bpe;
  std::array<AddedTokenMatcher, 2> matchers;  // those on the text as it is first, then those on what lies between
  std::optional<int32_t> bos_id, eos_id;
  bool add_bos_token = false;
  mutable WorkspacePool pool;
};

std::optional<int32_t> Tokenizer::Impl::FindToken(const std::string& name, const std::string& what) const {
  if (name.empty()) return std::nullopt;
  const auto it = std::find_if(added.begin(), added.end(), [&](const AddedToken& t) { return t.content == name; });
  if (it == added.end()) Throw(ErrorCode::kInput, "tokenizer_config.json: {} is none of tokenizer.json's added tokens", what);
  return it->id;
}

void Tokenizer::Impl::CheckArguments(std::string_view text, const EncodeOptions& options) const {
  if (options.add_bos && !bos_id) Throw(ErrorCode::kUsage, "add_bos: the tokenizer names no bos_token; add one to tokenizer_config.json");
  if (text.size() > BpeModel::kMaxPieceBytes)
    Throw(ErrorCode::kInput, "a text of {} bytes is too long to encode; cut it into documents", text.size());
}

bool Tokenizer::Impl::HasTokens(std::string_view text) const {
  return !lacks_bytes || std::ranges::all_of(text, [&](char byte) { return byte_ids[static_cast<unsigned char>(byte)] >= 0; });
}

void Tokenizer::Impl::EncodePieces(std::string_view text, Workspace& w, std::vector<int32_t>& ids) const {
  PieceCursor pieces(pre_tokenizer, text);
  for (std::string_view piece = pieces.Next(); !piece.empty(); piece = pieces.Next()) {
    if (piece.size() > PieceCache::kMaxBytes) {
      bpe.Encode(piece, w.scratch, ids);
      continue;
    }
    const PieceCache::Key key = PieceCache::MakeKey(piece);
    if (w.cache.Append(key, ids)) continue;
    const size_t before = ids.size();
    bpe.Encode(piece, w.scratch, ids);
    w.cache.Put(key, ids.data() + before, ids.size() - before);
  }
}

void Tokenizer::Impl::EncodeAround(size_t level, std::string_view text, Workspace& w, std::vector<int32_t>& ids) const {
  if (level == matchers.size()) return EncodePieces(text, w, ids);
  size_t at = 0;
  while (at < text.size()) {
    const auto match = matchers[level].Find(text, at);
    EncodeAround(level + 1, text.substr(at, match.begin - at), w, ids);
    if (match.length == 0) break;
    ids.push_back(match.id);
    at = match.begin + match.length;
  }
}

Tokenizer Tokenizer::Load(const std::filesystem::path& path) {
  std::error_code ignored;
  const auto file = std::filesystem::is_directory(path, ignored) ? path / "tokenizer.json" : path;
  return Tokenizer(ParseTokenizerFile(ReadTextFile(file), file.string()),
                   ReadTokenizerConfig(file.parent_path() / "tokenizer_config.json"));
}

Tokenizer::Tokenizer(TokenizerFile file, const TokenizerConfig& config) {
  auto impl = std::make_unique<Impl>(std::move(file));
  impl->bos_id = impl->FindToken(config.bos_token, "bos_token");
  impl->eos_id = impl->FindToken(config.eos_token, "eos_token");
  impl->add_bos_token = config.add_bos_token;
  impl_ = std::move(impl);
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

void Tokenizer::EncodeTo(std::string_view text, const EncodeOptions& options, std::vector<int32_t>& ids) const {
  impl_->CheckArguments(text, options);
  if (options.add_bos) ids.push_back(*impl_->bos_id);
  std::string valid;
  if (!impl_->HasTokens(text)) text = valid = ToValidUtf8(text);
  auto workspace = impl_->pool.Take();
  impl_->EncodeAround(options.added_tokens ? 0 : impl_->matchers.size(), text, *workspace, ids);
  impl_->pool.Return(std::move(workspace));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  EncodeTo(text, options, ids);
  return ids;
}

std::vector<std::vector<int32_t>> Tokenizer::EncodeBatch(std::span<const std::string_view> texts, const EncodeOptions& options) const {
  for (const std::string_view text : texts) impl_->CheckArguments(text, options);  // no error may be thrown on another thread
  std::vector<std::vector<int32_t>> ids(texts.size());
  ParallelJobs(static_cast<int64_t>(texts.size()),
               [&](int64_t i) { ids[static_cast<size_t>(i)] = Encode(texts[static_cast<size_t>(i)], options); });
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!(skip_special && IsSpecial(id))) bytes += TokenBytes(id);
  }
  return ToValidUtf8(bytes);
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  return id >= 0 && id < vocab_size() ? std::string_view(impl_->token_bytes[static_cast<size_t>(id)]) : std::string_view();
}

bool Tokenizer::IsSpecial(int32_t id) const { return id >= 0 && id < vocab_size() && impl_->is_special[static_cast<size_t>(id)]; }

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->token_bytes.size()); }
std::optional<int32_t> Tokenizer::bos_id() const { return impl_->bos_id; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->eos_id; }
bool Tokenizer::add_bos_token() const { return impl_->add_bos_token; }

std::string StreamDecoder::Push(int32_t id) {
  if (!(skip_special_ && tokenizer_->IsSpecial(id))) pending_ += tokenizer_->TokenBytes(id);
  const size_t shown = CompleteUtf8Prefix(pending_);
  const std::string text = ToValidUtf8(std::string_view(pending_).substr(0, shown));
  pending_.erase(0, shown);
  return text;
}

std::string StreamDecoder::Flush() {
  const std::string text = ToValidUtf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace fathom

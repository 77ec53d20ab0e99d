#include "fathom/data/byte_stream.h"

#include <algorithm>
#include <fstream>
#include <span>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/pulse.h"
#include "fathom/base/zstd.h"

namespace fathom {
namespace {

constexpr size_t kReadBytes = 1 << 16;
constexpr int kLongestWindow = 31;  // public dumps are made with zstd --long=31
constexpr size_t kLongestLine = size_t{64} << 20;

class PlainStream final : public ByteStream {
 public:
  PlainStream(const DataFile& file, int64_t begin, int64_t end) : path_(file.path), in_(file.path, std::ios::binary), left_(end - begin) {
    if (!in_.seekg(begin)) Throw(ErrorCode::kInput, "{}: can't be read", path_.string());
  }
  size_t Read(char* out, size_t n) override {
    const int64_t want = std::min(left_, static_cast<int64_t>(n));
    if (want <= 0) return 0;
    if (!in_.read(out, want)) Throw(ErrorCode::kInput, "{}: ends early; it has changed since it was opened", path_.string());
    Pulse::NoteBlock();
    left_ -= want;
    return static_cast<size_t>(want);
  }

 private:
  std::filesystem::path path_;
  std::ifstream in_;
  int64_t left_;
};

class ZstdStream final : public ByteStream {
 public:
  explicit ZstdStream(const DataFile& file)
      : path_(file.path),
        in_(file.path, std::ios::binary),
        reader_([this](std::span<std::byte> out) { return Compressed(out); }, file.path.string(), kLongestWindow) {
    if (!in_) Throw(ErrorCode::kInput, "{}: can't be read", path_.string());
  }
  size_t Read(char* out, size_t n) override { return reader_.ReadSome(std::as_writable_bytes(std::span(out, n))); }

 private:
  size_t Compressed(std::span<std::byte> out) {
    in_.read(reinterpret_cast<char*>(out.data()), std::ssize(out));
    Pulse::NoteBlock();
    if (in_.bad()) Throw(ErrorCode::kInput, "{}: can't be read", path_.string());
    return static_cast<size_t>(in_.gcount());
  }
  std::filesystem::path path_;
  std::ifstream in_;
  ZstdReader reader_;
};

}  // namespace

std::unique_ptr<ByteStream> OpenByteStream(const DataFile& file, int64_t begin, int64_t end) {
  if (file.compressed && file.bytes > 0) return std::make_unique<ZstdStream>(file);
  return std::make_unique<PlainStream>(file, begin, end);
}

bool StreamBuffer::Fill() {
  if (at_end_) return false;
  bytes_.erase(0, std::exchange(used_, 0));
  const size_t before = bytes_.size();
  bytes_.resize(before + kReadBytes);
  const size_t n = stream_->Read(bytes_.data() + before, kReadBytes);
  bytes_.resize(before + n);
  at_end_ = n == 0;
  return !at_end_;
}

bool StreamBuffer::TakeLine(std::string* line, const std::string& where) {
  size_t end = rest().find('\n');
  for (size_t searched = rest().size(); end == std::string_view::npos; end = rest().find('\n', searched)) {
    searched = rest().size();
    if (searched > kLongestLine) Throw(ErrorCode::kInput, "{}: the line at byte {} is longer than 64 MiB", where, offset_);
    if (!Fill()) break;
  }
  const size_t n = std::min(end, rest().size());
  if (n == 0 && end == std::string_view::npos) return false;
  line->assign(rest().substr(0, n));
  Drop(n + (end == std::string_view::npos ? 0 : 1));
  return true;
}

}  // namespace fathom

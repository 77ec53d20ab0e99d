#include "fathom/data/document_reader.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <span>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/json.h"
#include "fathom/base/zstd.h"
#include "fathom/data/file_format.h"

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
    if (in_.bad()) Throw(ErrorCode::kInput, "{}: can't be read", path_.string());
    return static_cast<size_t>(in_.gcount());
  }
  std::filesystem::path path_;
  std::ifstream in_;
  ZstdReader reader_;
};

// A byte earlier where a line may have begun before the extent, and on to the end of the file for the last line.
std::unique_ptr<ByteStream> OpenExtent(const DataFile& file, const Extent& extent) {
  if (!file.json_lines || file.compressed) return OpenByteStream(file, extent.begin, extent.end);
  return OpenByteStream(file, std::max<int64_t>(extent.begin - 1, 0), file.bytes);
}

}  // namespace

std::unique_ptr<ByteStream> OpenByteStream(const DataFile& file, int64_t begin, int64_t end) {
  if (file.compressed && file.bytes > 0) return std::make_unique<ZstdStream>(file);
  return std::make_unique<PlainStream>(file, begin, end);
}

DocumentReader::DocumentReader(const DataFile& file, const Extent& extent, std::string text_field, size_t part_bytes)
    : file_(file), extent_(extent), text_field_(std::move(text_field)), part_bytes_(part_bytes), stream_(OpenExtent(file, extent)) {
  if (!file_.json_lines || file_.compressed || extent_.begin == 0) return;
  offset_ = extent_.begin - 1;
  std::string line_of_the_extent_before;
  TakeLine(&line_of_the_extent_before);
}

bool DocumentReader::Next(Document* document) { return file_.json_lines ? NextLine(document) : NextPart(document); }

bool DocumentReader::Fill() {
  if (at_end_) return false;
  buffer_.erase(0, std::exchange(used_, 0));
  const size_t before = buffer_.size();
  buffer_.resize(before + kReadBytes);
  const size_t n = stream_->Read(buffer_.data() + before, kReadBytes);
  buffer_.resize(before + n);
  at_end_ = n == 0;
  return !at_end_;
}

bool DocumentReader::NextPart(Document* document) {
  while (buffer_.size() - used_ <= part_bytes_ && Fill()) {
  }
  const std::string_view rest = std::string_view(buffer_).substr(used_);
  if (rest.empty()) return false;
  const size_t n = CutPoint(rest, part_bytes_);
  CheckIsTextPart(rest.substr(0, n), file_.path.string());
  document->text.assign(rest.substr(0, n));
  used_ += n;
  document->ends = n == rest.size() && (file_.compressed || extent_.end == file_.bytes);
  return true;
}

bool DocumentReader::TakeLine(std::string* line) {
  size_t searched = used_;
  size_t end = buffer_.find('\n', searched);
  while (end == std::string::npos) {
    searched = buffer_.size() - used_;  // Fill moves used_ to 0
    if (searched > kLongestLine) Throw(ErrorCode::kInput, "{}: the line at byte {} is longer than 64 MiB", file_.path.string(), offset_);
    if (!Fill()) break;
    end = buffer_.find('\n', searched);
  }
  const size_t n = std::min(end, buffer_.size()) - used_;
  if (n == 0 && end == std::string::npos) return false;
  line->assign(buffer_, used_, n);
  const size_t taken = n + (end == std::string::npos ? 0 : 1);
  used_ += taken;
  offset_ += static_cast<int64_t>(taken);
  return true;
}

bool DocumentReader::NextLine(Document* document) {
  const int64_t limit = file_.compressed ? std::numeric_limits<int64_t>::max() : extent_.end;
  std::string line;
  while (offset_ < limit) {
    const int64_t at = offset_;
    if (!TakeLine(&line)) return false;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}, line at byte {}", file_.path.string(), at);
    const Json json = ParseJson(line, where);
    const auto field = json.is_object() ? json.find(text_field_) : json.end();
    if (field == json.end() || !field->is_string()) {
      Throw(ErrorCode::kInput, "{}: no string \"{}\"; train_data_columns names the field with the text", where, text_field_);
    }
    document->text = field->get<std::string>();
    document->ends = true;
    return true;
  }
  return false;
}

}  // namespace fathom

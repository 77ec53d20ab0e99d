#include "fathom/data/row_reader.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/data/byte_stream.h"
#include "fathom/data/token_file.h"
#include "fathom/parquet/parquet.h"

namespace fathom {
namespace {

constexpr std::string_view kSpace = " \t\r\n", kByteOrderMark = "\xef\xbb\xbf";
constexpr size_t kLongestRow = size_t{64} << 20;

class JsonLineReader final : public RowReader {
 public:
  JsonLineReader(const DataFile& file, const Extent& extent)
      : file_(file),
        limit_(file.compressed ? std::numeric_limits<int64_t>::max() : extent.end),
        // A byte earlier where a line may have begun before the extent, and on to the end of the file for the last line.
        buffer_(OpenByteStream(file, BeginOf(extent), file.bytes), BeginOf(extent)) {
    std::string line_of_the_extent_before;
    if (!file.compressed && extent.begin > 0) buffer_.TakeLine(&line_of_the_extent_before, file_.path.string());
  }

  bool Next(Row* row) override {
    while (buffer_.offset() < limit_) {
      row->place = buffer_.offset();
      if (!buffer_.TakeLine(&row->json, file_.path.string())) return false;
      if (row->place == 0 && row->json.starts_with(kByteOrderMark)) row->json.erase(0, kByteOrderMark.size());
      if (row->json.find_first_not_of(kSpace) != std::string::npos) return true;
    }
    return false;
  }

 private:
  static int64_t BeginOf(const Extent& extent) { return std::max<int64_t>(extent.begin - 1, 0); }

  DataFile file_;
  int64_t limit_;
  StreamBuffer buffer_;
};

// Finds where the elements of an array end; what lies between is the row.
class JsonArrayReader final : public RowReader {
 public:
  explicit JsonArrayReader(const DataFile& file) : file_(file), buffer_(OpenByteStream(file, 0, file.bytes), 0) {}

  bool Next(Row* row) override {
    if (at_end_) return false;
    if (rows_ == 0) {
      if (buffer_.Fill() && buffer_.rest().starts_with(kByteOrderMark)) buffer_.Drop(kByteOrderMark.size());
      if (Peek() != '[') Fail("is no JSON array");
      buffer_.Drop(1);
      if (Peek() == ']') return Close();
    }
    const size_t size = ElementSize();
    row->json.assign(buffer_.rest().substr(0, size));
    row->place = rows_++;
    buffer_.Drop(size);
    if (Peek() == ']') {
      Close();
    } else {
      buffer_.Drop(1);  // the comma
      Peek();
    }
    return true;
  }

 private:
  // The next character that is no space; 0 at the end.
  char Peek() {
    do {
      const size_t spaces = std::min(buffer_.rest().find_first_not_of(kSpace), buffer_.rest().size());
      buffer_.Drop(spaces);
      if (!buffer_.rest().empty()) return buffer_.rest()[0];
    } while (buffer_.Fill());
    return 0;
  }

  bool Close() {
    buffer_.Drop(1);
    if (Peek() != 0) Fail("goes on behind the end of its array");
    at_end_ = true;
    return false;
  }

  // Up to the comma or bracket behind it.
  size_t ElementSize() {
    int depth = 0;
    bool in_string = false, escaped = false;
    for (size_t at = 0;; ++at) {
      if (at == buffer_.rest().size() && !buffer_.Fill()) Fail(fmt::format("ends inside row {}: damaged or cut off", rows_ + 1));
      if (at > kLongestRow) Fail(fmt::format("row {} is longer than 64 MiB", rows_ + 1));
      const char c = buffer_.rest()[at];
      if (in_string) {
        in_string = escaped || c != '"';
        escaped = !escaped && c == '\\';
      } else if (c == '"') {
        in_string = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (depth == 0 && (c == ',' || c == ']')) {
        return at;
      } else if (c == '}' || c == ']') {
        --depth;
      }
    }
  }

  [[noreturn]] void Fail(const std::string& what) const { Throw(ErrorCode::kInput, "{}: {}", file_.path.string(), what); }

  DataFile file_;
  StreamBuffer buffer_;
  int64_t rows_ = 0;
  bool at_end_ = false;
};

// The row groups that begin in the extent.
class ParquetRowReader final : public RowReader {
 public:
  ParquetRowReader(const DataFile& file, const Extent& extent, std::vector<std::string> columns)
      : file_(ParquetFile::Open(file.path, file.compressed)), columns_(std::move(columns)), end_(extent.end) {
    while (group_ < Groups().size() && row_ < extent.begin) row_ += Groups()[group_++].rows;
  }

  bool Next(Row* row) override {
    while (!rows_ || !rows_->Next(&row->json)) {
      if (group_ == Groups().size() || row_ >= end_) return false;
      rows_.emplace(file_, group_++, columns_);
    }
    row->place = row_++;
    return true;
  }

 private:
  const std::vector<ParquetRowGroup>& Groups() const { return file_->metadata().groups; }

  std::shared_ptr<const ParquetFile> file_;
  std::vector<std::string> columns_;
  int64_t end_, row_ = 0;
  size_t group_ = 0;  // the next one
  std::optional<ParquetRows> rows_;
};

class TokenRowReader final : public RowReader {
 public:
  TokenRowReader(const DataFile& file, const Extent& extent)
      : file_(TokenFile::Open(file.path)), at_(extent.begin), end_(std::min(extent.end, file_->documents())) {}

  bool Next(Row* row) override {
    if (at_ >= end_) return false;
    const auto bytes = std::as_bytes(file_->document(at_));
    row->json.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    row->place = at_++;
    return true;
  }

 private:
  std::shared_ptr<const TokenFile> file_;
  int64_t at_, end_;
};

// Lines that begin before this byte.
int64_t LinesBefore(const DataFile& file, int64_t place) {
  StreamBuffer buffer(OpenByteStream(file, 0, file.bytes), 0);
  int64_t lines = 0;
  for (std::string line; buffer.offset() < place && buffer.TakeLine(&line, file.path.string());) ++lines;
  return lines;
}

}  // namespace

std::unique_ptr<RowReader> OpenRows(const DataFile& file, const Extent& extent, const std::vector<std::string>& columns) {
  if (file.kind == FileKind::kJsonLines) return std::make_unique<JsonLineReader>(file, extent);
  if (file.kind == FileKind::kJsonArray) return std::make_unique<JsonArrayReader>(file);
  if (file.kind == FileKind::kTokens) return std::make_unique<TokenRowReader>(file, extent);
  if (file.kind == FileKind::kParquet) return std::make_unique<ParquetRowReader>(file, extent, columns);
  Throw(ErrorCode::kInput, "{}: {}, where rows are read from Parquet, JSON lines (.jsonl) or a JSON array", file.path.string(),
        file.bytes == 0 ? "is empty" : "plain text");
}

std::vector<int32_t> IdsOfBytes(std::string_view bytes) {
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  return ids;
}

std::string DescribeRow(const DataFile& file, int64_t place) {
  if (file.kind == FileKind::kText) return file.path.string();
  if (file.kind != FileKind::kJsonLines) return fmt::format("{}, row {}", file.path.string(), place + 1);
  return fmt::format("{}, line {}", file.path.string(), LinesBefore(file, place) + 1);
}

}  // namespace fathom

// Bytes of a data file from front to back, through its compression.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "fathom/data/data_files.h"

namespace fathom {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Up to n bytes into out; 0 at the end. Throws Error(kInput): cannot be read, damaged zstd frame.
  virtual size_t Read(char* out, size_t n) = 0;
};

// Bytes [begin, end) of a file; all of its content if it is compressed (begin must be 0 then).
std::unique_ptr<ByteStream> OpenByteStream(const DataFile& file, int64_t begin, int64_t end);

// What was read of a stream and is not used yet.
class StreamBuffer {
 public:
  // offset: of the stream's first byte in the (decompressed) file.
  StreamBuffer(std::unique_ptr<ByteStream> stream, int64_t offset) : stream_(std::move(stream)), offset_(offset) {}

  std::string_view rest() const { return std::string_view(bytes_).substr(used_); }
  int64_t offset() const { return offset_; }  // of rest() in the file
  void Drop(size_t n) {
    used_ += n;
    offset_ += static_cast<int64_t>(n);
  }
  // More bytes behind rest(), which may move; false at the end.
  bool Fill();
  // Overwrites *line with the bytes before the next line end, or the end, and drops them and it; false: there is nothing more. where names
  // the file. Throws Error(kInput): longer than 64 MiB.
  bool TakeLine(std::string* line, const std::string& where);

 private:
  std::unique_ptr<ByteStream> stream_;
  std::string bytes_;
  size_t used_ = 0;
  int64_t offset_;
  bool at_end_ = false;
};

}  // namespace fathom

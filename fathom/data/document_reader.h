// Documents of one extent, one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "fathom/data/data_files.h"

namespace fathom {

struct Document {
  std::string text;   // UTF-8 as stored; plain text may hold a few bytes that are none
  bool ends = false;  // false: the part of a plain text before another part
};

// Bytes of a file from an offset on, decompressed if it is a .zst file (only from offset 0).
class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Up to n bytes into out; 0 at the end. Throws Error(kInput): cannot be read, damaged zstd frame.
  virtual size_t Read(char* out, size_t n) = 0;
};
std::unique_ptr<ByteStream> OpenByteStream(const DataFile& file, int64_t begin, int64_t end);

class DocumentReader {
 public:
  // Plain text longer than part_bytes is handed out in parts (CutPoint); JSON lines give the string under text_field.
  DocumentReader(const DataFile& file, const Extent& extent, std::string text_field, size_t part_bytes);
  // Overwrites *document; false at the end of the extent. Throws Error(kInput) naming the file and the place: a line that is not JSON,
  // lacks the field or is longer than 64 MiB; plain text that goes on as binary data.
  bool Next(Document* document);

 private:
  bool NextPart(Document* document);
  bool NextLine(Document* document);
  bool Fill();  // more bytes behind buffer_; false at the end
  bool TakeLine(std::string* line);

  DataFile file_;
  Extent extent_;
  std::string text_field_;
  size_t part_bytes_;
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;
  size_t used_ = 0;     // of buffer_
  int64_t offset_ = 0;  // of buffer_[used_] in the (decompressed) file
  bool at_end_ = false;
};

}  // namespace fathom

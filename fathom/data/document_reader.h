// Documents of one extent, one after the other.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fathom/data/byte_stream.h"
#include "fathom/data/row_reader.h"

namespace fathom {

struct Document {
  std::string text;   // UTF-8 as stored; plain text may hold a few bytes that are none
  bool ends = false;  // false: the part of a plain text before another part
  int64_t file = -1;  // of a DocumentStream's files, and the place there, for DescribeRow
  int64_t place = 0;
};

class DocumentReader {
 public:
  // Plain text longer than part_bytes is handed out in parts (CutPoint); rows give the string under text_field, or, if row_columns names
  // some, themselves: the text of a JSON object with at least these columns, as far as the row has them. Tokens are given as their ids'
  // bytes.
  DocumentReader(const DataFile& file, const Extent& extent, std::string text_field, size_t part_bytes,
                 std::vector<std::string> row_columns = {});
  // Overwrites *document (but for its file); false at the end of the extent. Throws Error(kInput) naming the file and the place: a row that
  // is not JSON or lacks the field, what RowReader throws; plain text that goes on as binary data, or where rows are wanted.
  bool Next(Document* document);

 private:
  bool NextPart(Document* document);
  bool NextRow(Document* document);

  DataFile file_;
  Extent extent_;
  std::string text_field_;
  size_t part_bytes_;
  std::vector<std::string> row_columns_;
  std::optional<StreamBuffer> plain_;
  std::unique_ptr<RowReader> rows_;
  Row row_;
};

}  // namespace fathom

// Rows of a data file, each as the text of a JSON object: JSON lines, a JSON array, Parquet; and documents of tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fathom/data/data_files.h"

namespace fathom {

struct Row {
  std::string json;   // as stored, or as a Parquet file's values make it, not checked to be JSON; of kTokens the ids' bytes (IdsOfBytes)
  int64_t place = 0;  // JSON lines: of the line's first byte in the (decompressed) file; otherwise the row, from 0
};

class RowReader {
 public:
  virtual ~RowReader() = default;
  // Overwrites *row with the next one; false at the end of the extent. Throws Error(kInput) naming the file and the place: rows can't be
  // told apart, one is longer than 64 MiB, damaged data.
  virtual bool Next(Row* row) = 0;
};

// columns: what a Parquet row is made of, as far as the file has them; the other formats give whole rows. Throws Error(kUsage): plain text.
std::unique_ptr<RowReader> OpenRows(const DataFile& file, const Extent& extent, const std::vector<std::string>& columns);

// The ids whose bytes a row of tokens is.
std::vector<int32_t> IdsOfBytes(std::string_view bytes);

// "PATH, line 3" or "PATH, row 3", from 1; of plain text "PATH". Reads JSON lines up to there: for errors.
std::string DescribeRow(const DataFile& file, int64_t place);

}  // namespace fathom

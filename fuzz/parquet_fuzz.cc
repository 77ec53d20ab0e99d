// A Parquet file of any content: either an Error of the right kind, or rows.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "fathom/base/error.h"
#include "fathom/parquet/parquet.h"
#include "fuzz/memory_file.h"

namespace {

using namespace fathom;

constexpr int kMostRows = 1000;  // run-length levels make millions of rows of a few bytes

void ReadAll(const std::shared_ptr<const ParquetFile>& file) {
  std::vector<std::string> columns;
  for (const ParquetNode& column : file->metadata().root.children) columns.push_back(column.name);
  std::string json;
  for (size_t group = 0; group < file->metadata().groups.size(); ++group) {
    ParquetRows rows(file, group, columns);
    for (int i = 0; i < kMostRows && rows.Next(&json); ++i) Require(json.starts_with('{') && json.ends_with('}'));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile memory(data, size);
  try {
    ReadAll(ParquetFile::Open(memory.path()));
  } catch (const Error& e) {
    Require(e.code() == ErrorCode::kInput);
  }
  return 0;
}

// What a Parquet file says about itself: its footer and the headers of its pages.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fathom {

enum class ParquetType : int8_t { kBoolean, kInt32, kInt64, kInt96, kFloat, kDouble, kBytes, kFixedBytes };
enum class ParquetCodec : int8_t { kNone, kSnappy, kGzip, kLzo, kBrotli, kLz4, kZstd, kLz4Raw };
enum class ParquetEncoding : int8_t {
  kPlain = 0,
  kPlainDictionary = 2,
  kRle = 3,
  kBitPacked = 4,
  kDelta = 5,
  kDeltaLength = 6,
  kDeltaBytes = 7,
  kDictionary = 8
};

// A node of the schema, its root included.
struct ParquetNode {
  enum Repetition { kRequired, kOptional, kRepeated };
  enum Kind { kLeaf, kStruct, kList, kMap };
  std::string name;
  Kind kind = kLeaf;
  Repetition repetition = kRequired;
  ParquetType type = ParquetType::kBytes;  // of a leaf
  bool is_unsigned = false;
  bool is_decimal = false;
  int max_definition = 0, max_repetition = 0;  // levels of an entry that has a value here
  size_t leaf = 0;                             // of the first leaf in it, counted over the schema
  size_t leaves = 0;                           // how many there are
  std::vector<ParquetNode> children;
};

struct ParquetChunk {  // of one leaf in one row group
  ParquetType type = ParquetType::kBytes;
  ParquetCodec codec = ParquetCodec::kNone;
  int64_t values = 0;          // entries, nulls and empty lists included
  int64_t begin = 0, end = 0;  // bytes in the file
};

struct ParquetRowGroup {
  int64_t rows = 0;
  std::vector<ParquetChunk> chunks;  // one per leaf
};

struct ParquetMetadata {
  ParquetNode root;
  std::vector<ParquetRowGroup> groups;
};

// footer: the bytes before the length and the mark at the end of a file of file_size bytes. Everything in the result lies inside the file.
// Throws Error(kInput), beginning with where.
ParquetMetadata ParseParquetFooter(std::string_view footer, uint64_t file_size, const std::string& where);

struct ParquetPage {
  enum Kind { kData = 0, kIndex = 1, kDictionary = 2, kData2 = 3 };
  Kind kind = kData;
  size_t header_bytes = 0;              // of this header itself
  int64_t stored_bytes = 0, bytes = 0;  // of what follows, and of what it becomes
  int64_t values = 0;
  ParquetEncoding encoding = ParquetEncoding::kPlain, level_encoding = ParquetEncoding::kRle;
  int64_t definition_bytes = 0, repetition_bytes = 0;  // kData2: levels before the values, never compressed
  bool compressed = true;                              // kData2
};

// The header that bytes begin with. Throws Error(kInput): it isn't one, or ends later.
ParquetPage ParseParquetPage(std::string_view bytes, const std::string& where);

}  // namespace fathom

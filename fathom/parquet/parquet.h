// Parquet files as rows of JSON: nested columns, several row groups, dictionary and plain pages of both versions, delta-encoded integers
// and texts; Snappy, gzip, zstd or uncompressed. Memory: a page and a dictionary per column.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fathom/parquet/leaf_reader.h"

namespace fathom {

class ParquetFile {
 public:
  // within_zstd: the whole file is compressed with zstd; then it is kept in memory. Throws Error(kInput): no Parquet file, cut off,
  // damaged, encrypted.
  static std::shared_ptr<const ParquetFile> Open(const std::filesystem::path& path, bool within_zstd = false);

  const ParquetMetadata& metadata() const { return metadata_; }
  const ParquetBytes& bytes() const { return bytes_; }
  int64_t rows() const;

 private:
  ParquetBytes bytes_;
  ParquetMetadata metadata_;
};

// The rows of one row group, one after the other.
class ParquetRows {
 public:
  // columns: names of top-level columns; those that the file lacks are left out. Throws Error(kInput): it has none of them, or one of a
  // type that is not read.
  ParquetRows(std::shared_ptr<const ParquetFile> file, size_t group, const std::vector<std::string>& columns);

  // Overwrites *json with an object of the columns, in the file's order; null members of objects are left out, but for one named content.
  // False at the end. Throws Error(kInput): damaged.
  bool Next(std::string* json);

 private:
  LeafReader& First(const ParquetNode& node) { return *by_leaf_[node.leaf]; }
  bool IsNull(const ParquetNode& node) { return First(node).Peek().definition < node.max_definition; }
  void SkipEntry(const ParquetNode& node);
  void Write(const ParquetNode& node, std::string& out);
  void WriteContent(const ParquetNode& node, std::string& out);
  void WriteMembers(const std::vector<const ParquetNode*>& members, std::string& out);
  void WriteList(const ParquetNode& repeated, const ParquetNode* element, std::string& out);
  void WriteMap(const ParquetNode& entries, std::string& out);
  template <class F>
  void ForEachItem(const ParquetNode& repeated, const F& write_item);

  std::shared_ptr<const ParquetFile> file_;
  std::vector<const ParquetNode*> columns_;
  std::deque<LeafReader> leaves_;
  std::vector<LeafReader*> by_leaf_;  // null: of a column that is not read
  int64_t left_;
};

}  // namespace fathom

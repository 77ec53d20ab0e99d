// The entries of one column of a row group, page by page: values with the levels that say where they belong (the Dremel paper's encoding).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fathom/parquet/levels.h"
#include "fathom/parquet/metadata.h"

namespace fathom {

// A file's bytes by position, from any thread.
struct ParquetBytes {
  std::string where;  // begins every message
  uint64_t size = 0;
  std::function<void(uint64_t offset, std::span<std::byte> out)> read;  // throws Error(kInput)
};

struct ParquetValue {
  std::string_view text;  // kBytes, kFixedBytes: valid until the reader moves on
  int64_t integer = 0;    // kBoolean, kInt32, kInt64
  double real = 0;        // kFloat, kDouble
};

struct ParquetEntry {
  int repetition = 0, definition = 0;
  ParquetValue value;  // where definition is the leaf's highest
};

class LeafReader {
 public:
  // Memory: one page and one dictionary. bytes must live longer. Throws Error(kInput): the chunk's type is another than the schema's, or
  // one that is not read (INT96, decimals).
  LeafReader(const ParquetBytes& bytes, const ParquetNode& leaf, const ParquetChunk& chunk);

  // Is there no entry left?
  bool AtEnd() const { return !loaded_ && left_in_chunk_ == 0; }
  // The next entry. Throws Error(kInput): damaged, or there is none.
  const ParquetEntry& Peek() {
    if (!loaded_) Load();
    return entry_;
  }
  void Advance() {
    Peek();
    loaded_ = false;
  }

 private:
  void Load();
  void ReadPage();
  ParquetPage ReadHeader() const;
  void TakeDictionary(const ParquetPage& page);
  void TakeData(const ParquetPage& page);
  void TakeData2(const ParquetPage& page, std::string_view stored);
  void StartValues(ParquetEncoding encoding, std::string_view values);
  std::string_view TakeLevels(std::string_view* page, int max_level, RunLengthReader* levels) const;
  int NextLevel(RunLengthReader& levels, int max_level) const;
  ParquetValue NextValue();
  ParquetValue PlainValue(std::string_view* plain) const;
  ParquetValue DeltaBytesValue();
  int64_t Narrow(int64_t value) const;
  std::string_view TakeBytes(std::string_view* from, uint64_t n) const;
  [[noreturn]] void Fail(const char* what) const;

  const ParquetBytes& bytes_;
  ParquetNode leaf_;
  ParquetChunk chunk_;
  int64_t at_;             // in the file, of the next page
  int64_t left_in_chunk_;  // entries that were not loaded
  int64_t left_in_page_ = 0;
  bool loaded_ = false;
  ParquetEntry entry_;

  std::string page_, dictionary_page_;
  std::vector<ParquetValue> dictionary_;
  RunLengthReader repetitions_, definitions_;
  ParquetEncoding encoding_ = ParquetEncoding::kPlain;
  std::string_view plain_;   // values that are not decoded yet
  uint64_t bit_ = 0;         // of plain booleans
  RunLengthReader indices_;  // into the dictionary, or run-length booleans
  DeltaReader deltas_, prefixes_;
  std::string text_;  // of delta-encoded texts
};

}  // namespace fathom

// Documents into rows of fixed length.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace fathom {

enum class Packing {
  kNone,             // one document, or one part of a long one, per row
  kFirstFit,         // whole documents side by side; only one longer than a row is divided
  kConcatThenSplit,  // documents one after the other, divided at the ends of rows: no padding
};

// "first_fit", "concat_then_split" (grain_packing_type). Throws Error(kUsage) with what is allowed.
Packing ParsePacking(std::string_view name);

// Part of a document: `count` tokens from index `begin`, each with the token behind it as its target.
struct PackedSpan {
  int64_t begin, count;
};

struct PackedRows {
  std::vector<PackedSpan> spans;
  std::vector<int64_t> first_span = {0};  // row r is spans [first_span[r], first_span[r+1])
  int64_t rows() const { return static_cast<int64_t>(first_span.size()) - 1; }
};

class Packer {
 public:
  // Rows of length tokens, with at most max_segments spans (0 or less: any number).
  Packer(Packing packing, int64_t length, int64_t max_segments);
  // A document of count + 1 tokens from index begin on.
  void Add(int64_t begin, int64_t count);
  // All rows in the order in which they were begun; the last ones may be short.
  PackedRows Finish();

 private:
  using Row = std::vector<PackedSpan>;
  struct OpenRow {
    size_t row;
    int64_t free;
  };
  OpenRow& OpenFor(int64_t count);
  bool Full(const OpenRow& open) const;

  Packing packing_;
  int64_t length_, max_segments_;
  std::vector<Row> rows_;
  std::vector<OpenRow> open_;
};

}  // namespace fathom

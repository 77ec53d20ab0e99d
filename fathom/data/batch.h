// What a training step reads: B rows of T tokens, row by row on one token axis of B*T.
#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

// Tokens [begin, end) of the token axis.
struct TokenRange {
  int64_t begin, end;
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

struct Batch {
  int64_t rows = 0, length = 0;      // B, T
  std::vector<int32_t> ids;          // [B*T] 0 in padding
  std::vector<int32_t> targets;      // [B*T] the token that follows in the document; 0 in padding
  std::vector<int32_t> positions;    // [B*T] from 0 in every segment; 0 in padding
  std::vector<int32_t> segment_ids;  // [B*T] from 1 in every row; 0 in padding
  std::vector<float> weights;        // [B*T] of the loss: 1, or 0 in padding and for targets that aren't counted
  std::vector<TokenRange> segments;  // in order; a segment lies in one row and is (a part of) one document
  int64_t target_count = 0;          // tokens whose weight is not 0
  int64_t text_bytes = 0;            // bytes of text that the targets stand for, as TextConfig::token_bytes counts them

  int64_t tokens() const { return rows * length; }
  // Sizes everything and fills it with padding. Keeps memory that is large enough.
  void Clear(int64_t new_rows, int64_t new_length);
  // Lays a segment over tokens [begin, begin + n), inside one row: ids and targets of each token, positions from 0, weights 1, or those
  // of mask [n] where there is one.
  void AddSegment(int64_t begin, int64_t n, const int32_t* new_ids, const int32_t* new_targets, int32_t segment_id,
                  const uint8_t* mask = nullptr);
  // Lays the only row of another batch, as long as this one's, over an empty row.
  void CopyRow(int64_t row, const Batch& other);
};

}  // namespace fathom

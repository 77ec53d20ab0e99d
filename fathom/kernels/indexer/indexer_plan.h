// How the indexer's kernels cut their work. Independent of the SIMD target.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fathom/kernels/attention/attention_plan.h"
#include "fathom/kernels/attention/mla_attention_plan.h"
#include "fathom/kernels/indexer/indexer.h"

namespace fathom {

struct IndexerArgs : IndexerInputs {
  bool pairs;  // products over pairs of BF16
  int64_t PanelFloats() const { return PadBlock(shape.head_dim) * PadBlock(shape.heads); }
};
// Checks shapes and dtypes; says whether products may take pairs of BF16.
bool CheckIndexerInputs(const IndexerInputs& in);

// Queries whose scores are in memory at a time: a strip of [kStripQueries][visible] in the loss, of [kChoiceQueries][visible] where keys are
// chosen.
inline constexpr int64_t kStripQueries = 32, kChoiceQueries = 64;

// A strip of queries [begin, end) of one segment, packed, and its scores.
struct IndexerStrip {
  Segment segment;
  int64_t begin, end, stride;
  float *queries, *weights, *scores;  // [queries][PanelFloats()], [queries][PadBlock(Hi)], [queries][stride]
  BlockTable table;                   // empty: keys as they lie
  // The row of the block of keys that begins with the segment's key `first`.
  int64_t KeyRow(int64_t first) const {
    return table.empty() ? segment.k_begin + first : table[static_cast<size_t>(first / kCacheBlock)] * kCacheBlock;
  }
  int64_t Keys(int64_t query) const { return VisibleEnd(segment, query) - segment.k_begin; }
};

struct IndexerScratch {
  float *keys, *keys_t;
  IndexerScratch(const IndexerShape& s, float* base) : IndexerScratch(s, ScratchCursor(base)) {}
  static int64_t Floats(const IndexerShape& s) { return IndexerScratch(s, nullptr).floats; }
  int64_t floats;

 private:
  IndexerScratch(const IndexerShape& s, ScratchCursor cursor) {
    for (float** block : {&keys, &keys_t}) *block = cursor.Take(kKeyBlock * PadBlock(s.head_dim));
    floats = cursor.used();
  }
};

}  // namespace fathom

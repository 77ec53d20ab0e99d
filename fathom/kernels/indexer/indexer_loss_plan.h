// How indexer_loss cuts its work. Independent of the SIMD target.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/kernels/attention/choice.h"
#include "fathom/kernels/attention/mla_attention_plan.h"
#include "fathom/kernels/attention/shared_keys.h"
#include "fathom/kernels/indexer/indexer_loss.h"
#include "fathom/kernels/indexer/indexer_plan.h"

namespace fathom {

// Rows of keys that one query's loss runs over: first, first + 1, ..., or listed.
struct KeyList {
  int64_t first, n;
  const int32_t* rows;  // nullptr: consecutive
  int64_t Row(int64_t i) const { return rows == nullptr ? first + i : rows[i]; }
  // Position of the first entry that is not below `row`.
  int64_t Position(int64_t row) const {
    if (rows == nullptr) return std::clamp<int64_t>(row - first, 0, n);
    return std::lower_bound(rows, rows + n, row) - rows;
  }
};

struct IndexerLossArgs {
  IndexerTarget target;
  IndexerInputs indexer;
  Choice choice;  // chosen empty: all that a query sees
  float factor;
  IndexerGradients gradients;
  bool pairs;  // products of the main attention over pairs of BF16

  bool Dense() const { return choice.chosen.empty(); }
  bool WantsGradients() const { return !gradients.dq.empty(); }
  int64_t PanelFloats() const { return PadBlock(indexer.shape.head_dim) * PadBlock(indexer.shape.heads); }
  KeyList Keys(const Segment& s, int64_t query) const {
    if (Dense()) return {s.k_begin, VisibleEnd(s, query) - s.k_begin, nullptr};
    const std::span<const int32_t> list = choice.Of(query);
    return {0, std::ssize(list), list.data()};
  }
};

// Queries [begin, end) of one segment. scores and targets have rows of `stride`: position i of a query's list stands at i.
// After its loss, a query's scores hold the gradient with respect to them.
struct LossStrip {
  Segment segment;
  int64_t begin, end, stride;
  float *scores, *targets;               // [kStripQueries][stride]
  float *queries, *queries_t, *weights;  // of the indexer: [kStripQueries][PanelFloats()] twice, [kStripQueries][PadBlock(Hi)]
  float* main_queries_t;                 // [H][PadBlock(Dn+Dr) * kStripQueries]
  BlockSight Sight(int64_t first, int64_t n) const { return {end - begin, n, VisibleEnd(segment, begin) - first}; }
};

// Ranges of keys whose dk is summed by one job each; their number is fixed.
inline constexpr int64_t kKeyParts = 16;
static_assert(kStripQueries <= 64, "a strip is one word of a mask");

struct LossScratch {
  float *rows, *keys, *dots, *product, *target, *target_t, *scores, *dweights;
  LossScratch(const IndexerTarget& t, const IndexerShape& s, float* base) : LossScratch(t, s, ScratchCursor(base)) {}
  static int64_t Floats(const IndexerTarget& t, const IndexerShape& s) { return LossScratch(t, s, nullptr).floats; }
  int64_t floats;

 private:
  LossScratch(const IndexerTarget& t, const IndexerShape& s, ScratchCursor cursor) {
    const int64_t wide = PadBlock(t.shape.nope_dim + t.shape.rope_dim), dim = PadBlock(s.head_dim), heads = PadBlock(s.heads);
    rows = cursor.Take(kKeyBlock * wide);
    keys = cursor.Take(kKeyBlock * dim);
    dots = cursor.Take(kKeyBlock * heads);
    product = cursor.Take(std::max(kKeyBlock, heads) * dim);
    target = cursor.Take(kKeyBlock * kStripQueries);
    target_t = cursor.Take(kKeyBlock * kStripQueries);
    scores = cursor.Take(kKeyBlock * kStripQueries);
    dweights = cursor.Take(heads);
    floats = cursor.used();
  }
};

}  // namespace fathom

// How the absorbed form's kernels load queries and rows of the cache. Once per SIMD target.
#if defined(FATHOM_KERNELS_MLA_DECODE_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_MLA_DECODE_ROWS_INL_H_
#undef FATHOM_KERNELS_MLA_DECODE_ROWS_INL_H_
#else
#define FATHOM_KERNELS_MLA_DECODE_ROWS_INL_H_
#endif

#include "fathom/kernels/attention/attention_blocks-inl.h"
#include "fathom/kernels/attention/mla_decode_plan.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Entry i of what the query attends to, as a row of the cache.
inline int64_t CacheRow(const DecodeArgs& a, int64_t query, int64_t i) {
  const int64_t row = a.chosen.empty() ? i : a.chosen[static_cast<size_t>(query * a.k + i)];
  if (a.tables.empty()) return row;
  return a.tables[static_cast<size_t>(query)][static_cast<size_t>(row / kCacheBlock)] * kCacheBlock + row % kCacheBlock;
}

// Entries [at, end) of what the query attends to, which travel from memory while those before them are multiplied: a few at a time, since
// a core waits for few lines at once.
struct NextRows {
  const DecodeArgs& a;
  int64_t query, at, end;
  void Ask(int64_t rows) {
    for (const int64_t to = std::min(end, at + rows); at < to; ++at) {
      PrefetchRow(a.cache, CacheRow(a, query, at), 0, a.shape.latent_dim + a.shape.rope_dim);
    }
  }
};

// Rows [first, first + n) of the cache, or of the query's list of chosen rows; zeros behind them.
template <class Path>
void LoadCache(const DecodeArgs& a, int64_t query, int64_t first, int64_t n, Block to) {
  const int64_t width = a.shape.latent_dim + a.shape.rope_dim;
  for (int64_t j = 0; j < n; ++j) {
    CopyRow(RowAt(a.cache, CacheRow(a, query, first + j)), width, ElementRow<Path>(to, j));
    ZeroTail<Path>(to, j, width);
  }
  std::fill(to.data + n * to.stride, to.data + kKeyBlock * to.stride, 0.0f);
}

// Heads [head, head + n) of a query, latent and rope part side by side, transposed.
template <class Path>
void LoadQuery(const DecodeArgs& a, int64_t query, int64_t head, int64_t n, Block rows, float* queries_t) {
  const MlaDecodeShape& s = a.shape;
  for (int64_t h = 0; h < n; ++h) {
    auto* row = ElementRow<Path>(rows, h);
    CopyRow(RowAt(a.q_latent, query, (head + h) * s.latent_dim), s.latent_dim, row);
    CopyRow(RowAt(a.q_rope, query, (head + h) * s.rope_dim), s.rope_dim, row + s.latent_dim);
    ZeroTail<Path>(rows, h, s.latent_dim + s.rope_dim);
  }
  std::fill(rows.data + n * rows.stride, rows.data + PadBlock(n) * rows.stride, 0.0f);
  TransposeBlock(rows, PadBlock(n), rows.stride, queries_t);
}

// scores [keys][Wide()] = keys queries^T, all seen: the sum in parts, so that the queries' part stays in the nearest cache for all keys.
template <class Path>
void ScoreRows(const BlockSight& sight, int64_t width, ConstBlock keys, const float* queries_t, float* scores, NextRows& next) {
  constexpr int64_t kSteps = 96, kRows = 12, kAsked = 4;
  const int64_t wide = sight.Wide(), steps = Steps<Path>(width);
  for (int64_t k = 0; k < steps; k += kSteps) {
    for (int64_t j = 0; j < sight.n; j += kRows) {
      next.Ask(kAsked);
      Path::Product({std::min(kRows, sight.n - j), sight.rows, std::min(kSteps, steps - k)},
                    {keys.data + j * keys.stride + k, keys.stride, 1}, ConstBlock(queries_t + k * wide, wide), {scores + j * wide, wide},
                    k == 0 ? Into::kOverwrite : Into::kAdd);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

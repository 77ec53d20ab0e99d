#include "fathom/kernels/attention/mla_decode.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/attention/mla_decode_backward.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/attention/mla_decode_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

int64_t Width(const MlaDecodeShape& s) { return s.latent_dim + s.rope_dim; }
int64_t HeadsFrom(const MlaDecodeShape& s, int64_t head) { return std::min(kQueryBlock, s.heads - head); }

// Queries and d_o of one query: transposed for the scores, and as right factors of sums over heads.
template <class Path>
void PackHeads(const DecodeBackwardArgs& a, int64_t query, const DecodeBackwardScratch& w, const PackedQuery& packed) {
  const MlaDecodeShape& s = a.shape;
  const int64_t width = Width(s), wide = PadBlock(width), latent_wide = PadBlock(s.latent_dim);
  for (int64_t h = 0; h < s.heads; h += kQueryBlock) {
    const int64_t n = HeadsFrom(s, h), step = h / Path::kStep;
    const Block queries{w.head_rows, RowStride<Path>(width)}, d_o{w.head_rows, RowStride<Path>(s.latent_dim)};
    LoadQuery<Path>(a, query, h, n, queries, w.queries_t + h * queries.stride);
    Path::Interleave(queries, PadBlock(n), width, {packed.queries + step * wide, wide});
    for (int64_t i = 0; i < n; ++i) {
      CopyRow(RowAt(a.d_o_latent, query, (h + i) * s.latent_dim), s.latent_dim, ElementRow<Path>(d_o, i));
      ZeroTail<Path>(d_o, i, s.latent_dim);
    }
    std::fill(d_o.data + n * d_o.stride, d_o.data + PadBlock(n) * d_o.stride, 0.0f);
    TransposeBlock(d_o, PadBlock(n), d_o.stride, w.d_o_t + h * d_o.stride);
    Path::Interleave(d_o, PadBlock(n), s.latent_dim, {packed.d_o + step * latent_wide, latent_wide});
  }
}

// Left factors by key, kept: F32 ones stand in the scores, which the next block overwrites.
template <class Path>
void KeepByKey(const Path& path, float* scores, const BlockSight& sight, float* kept) {
  path.ByKey(scores, sight, kept);
  if constexpr (Path::kStep == 1) std::copy_n(scores, sight.n * sight.Wide(), kept);
}

// One block of keys against all heads: adds to o and dq, keeps p and ds.
template <class Path>
void BackwardKeys(const Path& path, const MlaDecodeShape& s, int64_t first, int64_t n, ConstBlock rows_sum, const DecodeBackwardScratch& w,
                  const PackedQuery& packed, NextRows& next) {
  const int64_t width = Width(s), wide = PadBlock(width), latent_wide = PadBlock(s.latent_dim);
  const ConstBlock rows(w.rows, RowStride<Path>(width));
  for (int64_t h = 0; h < s.heads; h += kQueryBlock) {
    const BlockSight sight{HeadsFrom(s, h), n, n};
    ScoreRows<Path>(sight, width, rows, w.queries_t + h * RowStride<Path>(width), w.scores, next);
    ScoreRows<Path>(sight, s.latent_dim, rows, w.d_o_t + h * RowStride<Path>(s.latent_dim), w.d_scores, next);
    SoftmaxGradient(w.scores, w.d_scores, sight, s.scale, w.lse + h, w.dot + h);
    const int64_t at = PackedQuery::Offset(s, first, h);
    KeepByKey(path, w.scores, sight, packed.p + at);
    KeepByKey(path, w.d_scores, sight, packed.d_scores + at);
    SumOverKeys<Path>(sight, s.latent_dim, path.ByQuery(w.scores, sight, w.p), rows_sum, {w.o + h * latent_wide, latent_wide}, Into::kAdd);
    SumOverKeys<Path>(sight, width, path.ByQuery(w.d_scores, sight, w.p), rows_sum, {w.dq + h * wide, wide}, Into::kAdd);
  }
}

void StoreHeads(const DecodeBackwardArgs& a, int64_t query, const DecodeBackwardScratch& w) {
  const MlaDecodeShape& s = a.shape;
  const int64_t wide = PadBlock(Width(s));
  for (int64_t h = 0; h < s.heads; ++h) {
    StoreRow(w.o + h * PadBlock(s.latent_dim), 1, s.latent_dim, RowAt(a.out.o_latent, query, h * s.latent_dim));
    StoreRow(w.dq + h * wide, 1, s.latent_dim, RowAt(a.out.dq_latent, query, h * s.latent_dim));
    StoreRow(w.dq + h * wide + s.latent_dim, 1, s.rope_dim, RowAt(a.out.dq_rope, query, h * s.rope_dim));
  }
}

template <class Path>
void BackwardQuery(const Path& path, const DecodeBackwardArgs& a, int64_t query, int64_t keys, const DecodeBackwardScratch& w,
                   const PackedQuery& packed) {
  const MlaDecodeShape& s = a.shape;
  const int64_t width = Width(s), wide = PadBlock(width);
  PackHeads<Path>(a, query, w, packed);
  std::fill(w.o, w.o + s.heads * PadBlock(s.latent_dim), 0.0f);
  std::fill(w.dq, w.dq + s.heads * wide, 0.0f);
  for (int64_t h = 0; h < s.heads; ++h) {
    w.lse[h] = a.lse.row<float>(query)[h] * kLog2E;
    w.dot[h] = a.dot.row<float>(query)[h];
  }
  for (int64_t first = 0; first < keys; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, keys - first);
    const Block rows{w.rows, RowStride<Path>(width)}, sums{Path::kStep == 1 ? w.rows : w.rows_sum, wide};
    LoadCache<Path>(a, query, first, n, rows);
    Path::Interleave(rows, kKeyBlock, width, sums);
    NextRows next{a, query, first + n, std::min(keys, first + 2 * kKeyBlock)};
    BackwardKeys(path, s, first, n, sums, w, packed, next);
  }
  StoreHeads(a, query, w);
}

void BackwardQueryJob(const DecodeBackwardArgs& a, int64_t query, int64_t keys, float* scratch, const PackedQuery& packed) {
  const DecodeBackwardScratch w(a.shape, scratch);
  WithPath(a.pairs, a.cache.dtype() == DType::kBF16, [&](const auto& path) { BackwardQuery(path, a, query, keys, w, packed); });
}

// Columns [begin, end), all latent or all rope, of the gradients of a query's rows. out is scratch.
template <class Path>
void AddToRows(const DecodeBackwardArgs& a, int64_t query, int64_t keys, int64_t begin, int64_t end, const PackedQuery& packed, Block out) {
  const MlaDecodeShape& s = a.shape;
  const int64_t columns = end - begin, wide = PadBlock(Width(s)), latent_wide = PadBlock(s.latent_dim);
  for (int64_t first = 0; first < keys; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, keys - first);
    std::fill(out.data, out.data + n * out.stride, 0.0f);
    for (int64_t h = 0; h < s.heads; h += kQueryBlock) {
      const BlockSight sight{HeadsFrom(s, h), n, n};
      const int64_t at = PackedQuery::Offset(s, first, h), step = h / Path::kStep, row = sight.Wide() / Path::kStep;
      if (begin < s.latent_dim) {
        SumOverQueries<Path>(sight, columns, {packed.p + at, row, 1}, {packed.d_o + step * latent_wide + begin, latent_wide}, out);
      }
      SumOverQueries<Path>(sight, columns, {packed.d_scores + at, row, 1}, {packed.queries + step * wide + begin, wide}, out);
    }
    for (int64_t j = 0; j < n; ++j) {
      AddRow(out.data + j * out.stride, columns, a.out.d_cache.row<float>(CacheRow(a, query, first + j)) + begin);
    }
  }
}

void AddToRowsJob(const DecodeBackwardArgs& a, int64_t query, int64_t keys, int64_t begin, int64_t end, const PackedQuery& packed,
                  float* scratch) {
  const Block out{scratch, PadBlock(Width(a.shape))};
  WithPath(a.pairs, false, [&](const auto& path) {
    using Path = std::decay_t<decltype(path)>;
    const int64_t middle = std::clamp(a.shape.latent_dim, begin, end);
    if (begin < middle) AddToRows<Path>(a, query, keys, begin, middle, packed, out);
    if (middle < end) AddToRows<Path>(a, query, keys, middle, end, packed, out);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/base/threads.h"
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(BackwardQueryJob);
HWY_EXPORT(AddToRowsJob);

int64_t KeysOf(const DecodeBackwardArgs& a, int64_t query) { return std::ssize(Choice{a.chosen, a.k}.Of(query)); }

// A few queries: first each by itself, then the columns of the rows' gradients, shared out, query after query.
void BackwardQueries(const DecodeBackwardArgs& a, int64_t begin, int64_t end, const WorkerScratch<float>& workers,
                     std::span<const PackedQuery> packed) {
  workers.Run(end - begin, [&](int64_t i, float* own) {
    HWY_DYNAMIC_DISPATCH(BackwardQueryJob)(a, begin + i, KeysOf(a, begin + i), own, packed[static_cast<size_t>(i)]);
  });
  const int64_t width = a.shape.latent_dim + a.shape.rope_dim, blocks = (width + kBlockPad - 1) / kBlockPad;
  const int64_t ranges = std::min<int64_t>(blocks, NumThreads());
  workers.Run(ranges, [&](int64_t range, float* own) {
    const int64_t from = blocks * range / ranges * kBlockPad, to = std::min(width, blocks * (range + 1) / ranges * kBlockPad);
    for (int64_t i = 0; i < end - begin; ++i) {
      HWY_DYNAMIC_DISPATCH(AddToRowsJob)
      (a, begin + i, KeysOf(a, begin + i), from, to, packed[static_cast<size_t>(i)], own);
    }
  });
}

bool IsF32Matrix(const ConstView& v, int64_t rows, int64_t columns) { return IsMatrix(v, rows, columns) && v.dtype() == DType::kF32; }

int64_t WorkerFloats(const MlaDecodeShape& shape) {
  return std::max(DecodeBackwardScratch::Floats(shape), kKeyBlock * PadBlock(shape.latent_dim + shape.rope_dim));
}

}  // namespace

void MlaDecodeBackward(const MlaDecodeShape& shape, const MlaDecodeInputs& in, const MlaDecodeOutputs& out,
                       const MlaDecodeGradients& gradients, Arena& scratch) {
  const auto& [q_latent, q_rope, cache, visible, chosen, k, tables, whole] = in;
  const auto& [lse, dot, d_o_latent] = out;
  FATHOM_CHECK(visible.empty() && tables.empty(), "only chosen rows of one cache have a backward");
  const int64_t queries = q_latent.dim(0), latents = shape.heads * shape.latent_dim, ropes = shape.heads * shape.rope_dim;
  FATHOM_CHECK(IsF32Matrix(q_latent, queries, latents) && IsF32Matrix(d_o_latent, queries, latents) &&
                   IsF32Matrix(gradients.o_latent, queries, latents) && IsF32Matrix(gradients.dq_latent, queries, latents),
               "q_latent {}, d_o_latent {}", q_latent.shape().ToString(), d_o_latent.shape().ToString());
  FATHOM_CHECK(IsF32Matrix(q_rope, queries, ropes) && IsF32Matrix(gradients.dq_rope, queries, ropes), "q_rope {}",
               q_rope.shape().ToString());
  FATHOM_CHECK(IsF32Matrix(lse, queries, shape.heads) && IsF32Matrix(dot, queries, shape.heads), "lse {}, dot {}", lse.shape().ToString(),
               dot.shape().ToString());
  const int64_t width = shape.latent_dim + shape.rope_dim;
  FATHOM_CHECK(IsMatrix(cache, cache.dim(0), width) && IsF32Matrix(gradients.d_cache, cache.dim(0), width), "cache {}, d_cache {}",
               cache.shape().ToString(), gradients.d_cache.shape().ToString());
  FATHOM_CHECK(k > 0 && std::ssize(chosen) == queries * k, "{} chosen, k {}", chosen.size(), k);
  for (const int32_t row : chosen) FATHOM_CHECK(row < cache.dim(0), "row {} of {}", row, cache.dim(0));
  const ArenaScope scope(scratch);
  const bool pairs = cache.dtype() == DType::kBF16 && HasNativeBF16();
  const DecodeBackwardArgs a{{in, shape, pairs}, out, gradients};
  const int64_t pack = PackedQuery::Floats(shape, k);
  const WorkerScratch<float> workers(scratch, WorkerFloats(shape));
  float* packs = scratch.AllocArray<float>(kPackedQueries * pack);
  const std::span<PackedQuery> packed = scratch.AllocSpan<PackedQuery>(kPackedQueries);
  for (int64_t i = 0; i < kPackedQueries; ++i) std::construct_at(&packed[static_cast<size_t>(i)], shape, k, packs + i * pack);
  for (int64_t begin = 0; begin < queries; begin += kPackedQueries) {
    BackwardQueries(a, begin, std::min(queries, begin + kPackedQueries), workers, packed);
  }
}

}  // namespace fathom
#endif  // HWY_ONCE

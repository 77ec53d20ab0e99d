#include "fathom/kernels/attention/mla_decode.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/attention/mla_decode.cc"
#include <hwy/foreach_target.h>

#include <cmath>
#include <type_traits>

#include "fathom/kernels/attention/mla_decode_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// The cache's rows [first, first + n) where they lie, if they can be multiplied as stored; else a copy in `copy`.
template <class Path>
ConstBlock CacheRows(const DecodeArgs& a, int64_t query, int64_t first, int64_t n, Block copy) {
  const int64_t width = a.shape.latent_dim + a.shape.rope_dim;
  const bool whole = width % Path::kStep == 0 && a.cache.stride() % Path::kStep == 0 && width >= PadBlock(a.shape.latent_dim);
  if (a.chosen.empty() && whole && a.cache.dtype() == DTypeOf<typename Path::Element>::value) {
    return ConstBlock(reinterpret_cast<const float*>(RowAt(a.cache, CacheRow(a, query, first)).data), a.cache.stride() / Path::kStep);
  }
  LoadCache<Path>(a, query, first, n, copy);
  return copy;
}

// A part's heads of one query over its rows: unnormalised sums of latents and the state of each head's softmax.
template <class Path>
void DecodeRows(const Path& path, const DecodeArgs& a, const DecodePart& part, const DecodeScratch& w, const PartialSums& out) {
  const MlaDecodeShape& s = a.shape;
  const int64_t width = s.latent_dim + s.rope_dim, stride = RowStride<Path>(width), latent_wide = PadBlock(s.latent_dim);
  for (int64_t h = part.head; h < part.head_end; h += kQueryBlock) {
    LoadQuery<Path>(a, part.query, h, std::min(kQueryBlock, part.head_end - h), {w.query_rows, stride}, w.queries_t + h * stride);
  }
  const int64_t states_end = part.head + PadBlock(part.head_end - part.head);
  std::fill(out.sums + part.head * latent_wide, out.sums + part.head_end * latent_wide, 0.0f);
  std::fill(out.sum + part.head, out.sum + states_end, 0.0f);
  std::fill(out.top + part.head, out.top + states_end, -std::numeric_limits<float>::infinity());
  for (int64_t first = part.begin; first < part.end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, part.end - first);
    const ConstBlock rows = CacheRows<Path>(a, part.query, first, n, {w.rows, stride});
    NextRows next{a, part.query, first + n, std::min(part.end, first + 2 * kKeyBlock)};
    ConstBlock rows_sum = rows;
    if constexpr (Path::kStep > 1) {
      Path::Interleave(rows, n, s.latent_dim, {w.rows_sum, latent_wide});
      rows_sum = ConstBlock(w.rows_sum, latent_wide);
    }
    for (int64_t h = part.head; h < part.head_end; h += kQueryBlock) {
      const BlockSight sight{std::min(kQueryBlock, part.head_end - h), n, n};
      ScoreRows<Path>(sight, width, rows, w.queries_t + h * stride, w.scores, next);
      SoftmaxColumns(w.scores, sight, s.scale * kLog2E, {out.top + h, out.sum + h, w.factor});
      SumOverKeys<Path>(sight, s.latent_dim, path.ByQuery(w.scores, sight, w.p), rows_sum, {out.sums + h * latent_wide, latent_wide},
                        Into::kScaleAdd, w.factor);
    }
  }
}

// Scores [n][kBlockPad] of a block of heads with rows of one block of keys.
template <class Path>
void ScoreStrip(const DecodeArgs& a, const DecodePart& part, const DecodeScratch& w, float* scores) {
  const int64_t width = a.shape.latent_dim + a.shape.rope_dim, stride = RowStride<Path>(width);
  const int64_t heads = part.head_end - part.head, n = part.end - part.begin;
  LoadQuery<Path>(a, part.query, part.head, heads, {w.query_rows, stride}, w.queries_t);
  const ConstBlock rows = CacheRows<Path>(a, part.query, part.begin, n, {w.rows, stride});
  NextRows next{a, part.query, part.end, part.end};
  ScoreRows<Path>(BlockSight{heads, n, n}, width, rows, w.queries_t, scores, next);
}

// A part's block of heads, from its scores: latents [columns) of the sums, and with the first of them the state of the softmax.
template <class Path>
void SumStrip(const Path& path, const DecodeArgs& a, const DecodePart& part, const IndexRange& columns, const float* scores,
              const DecodeScratch& w, const PartialSums& out) {
  const MlaDecodeShape& s = a.shape;
  const int64_t stride = RowStride<Path>(s.latent_dim + s.rope_dim), latent_wide = PadBlock(s.latent_dim);
  const int64_t heads = part.head_end - part.head, count = columns.end - columns.begin;
  const Block sums{out.sums + part.head * latent_wide + columns.begin, latent_wide};
  for (int64_t h = 0; h < heads; ++h) std::fill_n(sums.data + h * latent_wide, count, 0.0f);
  std::fill_n(w.sum, kBlockPad, 0.0f);
  std::fill_n(w.top, kBlockPad, -std::numeric_limits<float>::infinity());
  for (int64_t first = part.begin; first < part.end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, part.end - first);
    const ConstBlock rows = CacheRows<Path>(a, part.query, first, n, {w.rows, stride});
    ConstBlock right(rows.data + columns.begin / Path::kStep, rows.stride);
    if constexpr (Path::kStep > 1) {
      Path::Interleave(right, n, count, {w.rows_sum, latent_wide});
      right = ConstBlock(w.rows_sum, latent_wide);
    }
    const BlockSight sight{heads, n, n};
    std::copy_n(scores + (first - part.begin) * kBlockPad, n * kBlockPad, w.scores);
    SoftmaxColumns(w.scores, sight, s.scale * kLog2E, {w.top, w.sum, w.factor});
    SumOverKeys<Path>(sight, count, path.ByQuery(w.scores, sight, w.p), right, sums, Into::kScaleAdd, w.factor);
  }
  if (columns.begin > 0) return;
  std::copy_n(w.top, kBlockPad, out.top + part.head);
  std::copy_n(w.sum, kBlockPad, out.sum + part.head);
}

void ScoreJob(const DecodeArgs& a, const DecodePart& part, float* scratch, float* scores) {
  const DecodeScratch w(a.shape, scratch);
  WithPath(a.pairs, a.cache.dtype() == DType::kBF16,
           [&](const auto& path) { ScoreStrip<std::remove_cvref_t<decltype(path)>>(a, part, w, scores); });
}

void SumJob(const DecodeArgs& a, const DecodePart& part, const IndexRange& columns, const float* scores, float* scratch,
            const PartialSums& out) {
  const DecodeScratch w(a.shape, scratch);
  WithPath(a.pairs, a.cache.dtype() == DType::kBF16, [&](const auto& path) { SumStrip(path, a, part, columns, scores, w, out); });
}

void DecodeJob(const DecodeArgs& a, const DecodePart& part, float* scratch, const PartialSums& out) {
  const DecodeScratch w(a.shape, scratch);
  WithPath(a.pairs, a.cache.dtype() == DType::kBF16, [&](const auto& path) { DecodeRows(path, a, part, w, out); });
}

// A part that is all of a query's rows: its sums become results.
void DecodeWholeJob(const DecodeArgs& a, const DecodePart& part, float* scratch, const PartialSums& sums, const DecodeResults& out) {
  DecodeJob(a, part, scratch, sums);
  const int64_t width = a.shape.latent_dim;
  for (int64_t h = part.head; h < part.head_end; ++h) {
    const float sum = sums.sum[h];
    StoreRow(sums.sums + h * PadBlock(width), sum == 0 ? 0 : 1 / sum, width, RowAt(out.o_latent, part.query, h * width));
    if (!out.lse.empty()) out.lse.row<float>(part.query)[h] = sums.top[h] * kLn2 + std::log(sum);
    if (!out.top.empty()) out.top.row<float>(part.query)[h] = sums.top[h] * kLn2;
  }
}

// One head of one query: parts are added in order, brought to their common largest score.
void CombineParts(const MlaDecodeShape& s, int64_t head, std::span<const PartialSums> parts, float* o, float* lse, float* largest) {
  float top = -std::numeric_limits<float>::infinity(), sum = 0;
  for (const PartialSums& p : parts) top = std::max(top, p.top[head]);
  std::fill(o, o + s.latent_dim, 0.0f);
  for (const PartialSums& p : parts) {
    const VF factor = Exp2NonPositive(hn::Set(DF(), p.top[head] - top));
    const float* from = p.sums + head * PadBlock(s.latent_dim);
    ForVectors(s.latent_dim, [&](auto at) { Store(at, hn::MulAdd(factor, at.Load(from), at.Load(o)), o); });
    sum += hn::GetLane(factor) * p.sum[head];
  }
  if (!parts.empty()) StoreRow(o, 1 / sum, s.latent_dim, {reinterpret_cast<std::byte*>(o), DType::kF32});
  if (lse != nullptr) *lse = parts.empty() ? top : top * kLn2 + std::log(sum);
  if (largest != nullptr) *largest = top * kLn2;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(DecodeJob);
HWY_EXPORT(ScoreJob);
HWY_EXPORT(SumJob);
HWY_EXPORT(DecodeWholeJob);
HWY_EXPORT(CombineParts);

int64_t RowsOf(const DecodeArgs& a, int64_t query) {
  return a.chosen.empty() ? a.visible[static_cast<size_t>(query)] : std::ssize(Choice{a.chosen, a.k}.Of(query));
}

// Every row that a query sees is one of the cache's.
void CheckRows(const MlaDecodeInputs& in) {
  const int64_t rows = in.cache.dim(0);
  const auto rows_of = [&](size_t query) { return in.tables.empty() ? rows : std::ssize(in.tables[query]) * kCacheBlock; };
  for (size_t m = 0; m < in.visible.size(); ++m)
    FATHOM_CHECK(0 <= in.visible[m] && in.visible[m] <= rows_of(m), "{} visible of {}", in.visible[m], rows_of(m));
  for (size_t i = 0; i < in.chosen.size(); ++i) {
    const int64_t most = rows_of(i / static_cast<size_t>(in.k));
    FATHOM_CHECK(in.chosen[i] < most, "row {} of {}", in.chosen[i], most);
  }
  for (const BlockTable& table : in.tables) {
    for (const int32_t block : table)
      FATHOM_CHECK(0 <= block && (block + 1) * kCacheBlock <= rows, "block {} in a cache of {} rows", block, rows);
  }
}

// A score and a weighted latent for each head and row; a query's rows come from memory once.
void NoteWork(TraceSlice& slice, const DecodeArgs& a, int64_t queries) {
  if (!slice.recorded()) return;
  const int64_t width = a.shape.latent_dim + a.shape.rope_dim;
  int64_t rows = 0;
  for (int64_t m = 0; m < queries; ++m) rows += RowsOf(a, m);
  slice.AddWork(2 * static_cast<double>(rows * a.shape.heads * (width + a.shape.latent_dim)),
                static_cast<double>(rows * width * DTypeSize(a.cache.dtype())));
}

// The parts of all queries' rows, and where their sums lie.
struct DecodeSums {
  const MlaDecodeShape& s;
  JobTable parts;
  int64_t heads = PadBlock(s.heads), floats = s.heads * PadBlock(s.latent_dim);
  float *states, *partial;
  DecodeSums(const DecodeArgs& a, Arena& scratch)
      : s(a.shape),
        parts(scratch, a.q_latent.dim(0), [&](int64_t m) { return DecodeParts(RowsOf(a, m)); }),
        states(scratch.AllocArray<float>(parts.size() * 2 * heads)),
        partial(scratch.AllocArray<float>(parts.size() * floats)) {}
  PartialSums Of(int64_t part) const { return {partial + part * floats, states + 2 * part * heads, states + (2 * part + 1) * heads}; }
  DecodePart Part(const DecodeArgs& a, int64_t part, int64_t head, int64_t head_end) const {
    const auto [m, i] = parts.At(part);
    const auto [begin, end] = DecodeRange(RowsOf(a, m), i);
    return {m, head, std::min(s.heads, head_end), begin, end};
  }
};

// A job for each part and group of heads.
void RunWhole(const DecodeArgs& a, const DecodeSums& sums, const WorkerScratch<float>& workers) {
  const int64_t groups = DecodeHeadGroups(a.shape.heads, sums.parts.size(), NumWorkers()), blocks = HeadBlocks(a.shape.heads);
  workers.Run(sums.parts.size() * groups, [&](int64_t i, float* own) {
    const auto [begin, end] = OwnRange(blocks, i % groups, groups);
    HWY_DYNAMIC_DISPATCH(DecodeJob)
    (a, sums.Part(a, i / groups, begin * kBlockPad, end * kBlockPad), own, sums.Of(i / groups));
  });
}

// A job for each strip of rows and block of heads; then one for each part, block of heads and range of latents.
void RunStrips(const DecodeArgs& a, const DecodeSums& sums, const WorkerScratch<float>& workers, Arena& scratch) {
  const int64_t heads = HeadBlocks(a.shape.heads), threads = NumWorkers(), units = PadBlock(a.shape.latent_dim) / kBlockPad;
  const JobTable blocks(scratch, a.q_latent.dim(0), [&](int64_t m) { return (RowsOf(a, m) + kKeyBlock - 1) / kKeyBlock; });
  float* scores = scratch.AllocArray<float>(heads * blocks.size() * kKeyBlock * kBlockPad);
  const auto scores_of = [&](int64_t head, int64_t m, int64_t row) {
    return scores + ((head * blocks.size() + blocks.First(m)) * kKeyBlock + row) * kBlockPad;
  };
  const int64_t strips = EvenParts(blocks.size() * heads, kKeyBlock / kBlockPad, threads);
  workers.Run(blocks.size() * strips * heads, [&](int64_t i, float* own) {
    const int64_t head = i % heads, strip = i / heads % strips;
    const auto [m, block] = blocks.At(i / heads / strips);
    const auto [begin, end] = OwnRange(kKeyBlock, strip, strips);
    const int64_t first = block * kKeyBlock + begin, last = std::min(block * kKeyBlock + end, RowsOf(a, m));
    if (first >= last) return;
    const DecodePart part{m, head * kBlockPad, std::min(a.shape.heads, (head + 1) * kBlockPad), first, last};
    HWY_DYNAMIC_DISPATCH(ScoreJob)(a, part, own, scores_of(head, m, first));
  });
  const int64_t ranges = EvenParts(sums.parts.size() * heads, units, threads);
  workers.Run(sums.parts.size() * heads * ranges, [&](int64_t i, float* own) {
    const int64_t head = i / ranges % heads, job = i / ranges / heads;
    const auto [begin, end] = OwnRange(units, i % ranges, ranges);
    const DecodePart part = sums.Part(a, job, head * kBlockPad, (head + 1) * kBlockPad);
    const IndexRange columns{begin * kBlockPad, std::min(a.shape.latent_dim, end * kBlockPad)};
    HWY_DYNAMIC_DISPATCH(SumJob)(a, part, columns, scores_of(head, part.query, part.begin), own, sums.Of(job));
  });
}

// A job for each query and group of heads.
void DecodeWholeQueries(const DecodeArgs& a, const DecodeResults& out, Arena& scratch) {
  const MlaDecodeShape& s = a.shape;
  const int64_t queries = a.q_latent.dim(0), heads = PadBlock(s.heads), sums = s.heads * PadBlock(s.latent_dim);
  const int64_t groups = DecodeHeadGroups(s.heads, queries, NumWorkers()), job_floats = DecodeScratch::Floats(s);
  const WorkerScratch<float> workers(scratch, job_floats + sums + 2 * heads);
  workers.Run(queries * groups, [&](int64_t i, float* own) {
    const int64_t m = i / groups;
    const auto [begin, end] = OwnRange(HeadBlocks(s.heads), i % groups, groups);
    const DecodePart part{m, begin * kBlockPad, std::min(s.heads, end * kBlockPad), 0, RowsOf(a, m)};
    float* state = own + job_floats + sums;
    HWY_DYNAMIC_DISPATCH(DecodeWholeJob)(a, part, own, {own + job_floats, state, state + heads}, out);
  });
}

void DecodeInParts(const DecodeArgs& a, const DecodeResults& out, Arena& scratch) {
  const auto& [o_latent, lse, top] = out;
  const MlaDecodeShape& s = a.shape;
  const int64_t queries = a.q_latent.dim(0);
  const DecodeSums sums(a, scratch);
  const WorkerScratch<float> workers(scratch, DecodeScratch::Floats(s));
  auto* parts = scratch.AllocArray<PartialSums>(sums.parts.size());
  for (int64_t i = 0; !PlanScope::Active() && i < sums.parts.size(); ++i) parts[i] = sums.Of(i);
  if (IsBetterInStrips(s.heads, sums.parts.size(), NumWorkers())) {
    RunStrips(a, sums, workers, scratch);
  } else {
    RunWhole(a, sums, workers);
  }
  const TraceSlice combine("combine parts");
  ParallelRanges(queries * s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t m = i / s.heads, head = i % s.heads;
      const std::span<const PartialSums> own(parts + sums.parts.First(m), static_cast<size_t>(DecodeParts(RowsOf(a, m))));
      HWY_DYNAMIC_DISPATCH(CombineParts)
      (s, head, own, o_latent.row<float>(m) + head * s.latent_dim, lse.empty() ? nullptr : lse.row<float>(m) + head,
       top.empty() ? nullptr : top.row<float>(m) + head);
    }
  });
}

}  // namespace

void MlaDecode(const MlaDecodeShape& shape, const MlaDecodeInputs& in, View o_latent, View lse, Arena& scratch, View top) {
  const auto& [q_latent, q_rope, cache, visible, chosen, k, tables, whole] = in;
  const int64_t queries = q_latent.dim(0);
  FATHOM_CHECK(IsMatrix(q_latent, queries, shape.heads * shape.latent_dim) && q_latent.dtype() == DType::kF32 &&
                   IsMatrix(q_rope, queries, shape.heads * shape.rope_dim) && q_rope.dtype() == DType::kF32 &&
                   o_latent.shape() == q_latent.shape() && o_latent.dtype() == DType::kF32,
               "q_latent {}, q_rope {}, o_latent {}", q_latent.shape().ToString(), q_rope.shape().ToString(), o_latent.shape().ToString());
  FATHOM_CHECK(IsMatrix(cache, cache.dim(0), shape.latent_dim + shape.rope_dim), "cache {}", cache.shape().ToString());
  for (const View& x : {lse, top})
    FATHOM_CHECK(x.empty() || (IsMatrix(x, queries, shape.heads) && x.dtype() == DType::kF32), "lse or top {}", x.shape().ToString());
  FATHOM_CHECK(chosen.empty() ? std::ssize(visible) == queries : std::ssize(chosen) == queries * k, "{} visible, {} chosen", visible.size(),
               chosen.size());
  FATHOM_CHECK(tables.empty() || std::ssize(tables) == queries, "{} tables, {} queries", tables.size(), queries);
  CheckRows(in);
  const ArenaScope scope(scratch);
  const DecodeArgs a{in, shape, cache.dtype() == DType::kBF16 && HasNativeBF16()};
  TraceSlice slice("absorbed attention");
  NoteWork(slice, a, queries);
  if (whole) return DecodeWholeQueries(a, {o_latent, lse, top}, scratch);
  DecodeInParts(a, {o_latent, lse, top}, scratch);
}

}  // namespace fathom
#endif  // HWY_ONCE

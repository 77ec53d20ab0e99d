#include "fathom/kernels/attention/mla_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/attention/mla_attention.cc"
#include <hwy/foreach_target.h>

#include <cmath>

#include "fathom/kernels/attention/mla_attention_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void StoreOutput(const MlaForwardArgs& a, int64_t head, int64_t q0, int64_t rows, const ForwardScratch& w) {
  for (int64_t i = 0; i < rows; ++i) {
    StoreRow(w.o + i * PadBlock(a.shape.v_dim), 1 / w.sum[i], a.shape.v_dim, RowAt(a.o, q0 + i, head * a.shape.v_dim));
    if (!a.lse.empty()) a.lse.row<float>(q0 + i)[head] = w.top[i] * kLn2 + std::log(w.sum[i]);
  }
}

// One block of queries (the chunk's rows from i on) against one block of keys: o, top and sum move on.
template <class Path>
void AttendBlock(const Path& path, const MlaForwardArgs& a, const BlockSight& sight, int64_t i, const ForwardScratch& w) {
  const int64_t width = a.width(), v_wide = PadBlock(a.shape.v_dim);
  ScoreBlock<Path>(sight, width, ConstBlock(w.keys, RowStride<Path>(width)), w.queries_t + i * RowStride<Path>(width), w.scores);
  SoftmaxColumns(w.scores, sight, a.shape.scale * kLog2E, {w.top + i, w.sum + i, w.factor});
  const BlockLeft p = path.ByQuery(w.scores, sight, w.p);
  SumOverKeys<Path>(sight, a.shape.v_dim, p, ConstBlock(w.values_sum, v_wide), {w.o + i * v_wide, v_wide}, Into::kScaleAdd, w.factor);
}

// Queries [q0, q1) of one segment and head: all their keys, block by block.
template <class Path>
void ForwardChunk(const Path& path, const MlaForwardArgs& a, const Segment& seg, int64_t head, int64_t q0, int64_t q1,
                  const ForwardScratch& w) {
  const MlaShape& s = a.shape;
  const int64_t width = a.width(), rows = q1 - q0, v_wide = PadBlock(s.v_dim);
  const Block queries{w.rows, RowStride<Path>(width)}, keys{w.keys, RowStride<Path>(width)};
  const Block values{Path::kStep == 1 ? w.values_sum : w.values, RowStride<Path>(s.v_dim)};
  for (int64_t i = 0; i < rows; i += kQueryBlock) {
    const int64_t n = std::min(kQueryBlock, rows - i);
    LoadRows<Path>(a.q, q0 + i, n, head * width, width, PadBlock(n), queries);
    TransposeBlock(queries, PadBlock(n), queries.stride, w.queries_t + i * queries.stride);
  }
  std::fill(w.o, w.o + rows * v_wide, 0.0f);
  std::fill(w.sum, w.sum + kQueryChunk, 0.0f);
  std::fill(w.top, w.top + kQueryChunk, -std::numeric_limits<float>::infinity());
  for (int64_t first = seg.k_begin, end = VisibleEnd(seg, q1 - 1); first < end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, end - first);
    LoadKeys<Path>(a, head, first, n, keys);
    LoadValues<Path>(a, head, first, n, values);
    Path::Interleave(values, n, s.v_dim, {w.values_sum, v_wide});
    for (int64_t i = 0; i < rows; i += kQueryBlock) {
      const BlockSight sight{std::min(kQueryBlock, rows - i), n, VisibleEnd(seg, q0 + i) - first};
      if (sight.Seen(sight.rows - 1) > 0) AttendBlock(path, a, sight, i, w);
    }
  }
  StoreOutput(a, head, q0, rows, w);
}

void ForwardJob(const MlaForwardArgs& a, const Segment& seg, int64_t head, int64_t q0, int64_t q1, float* scratch) {
  const ForwardScratch w(a.shape, scratch);
  WithPath(a.pairs, a.q.dtype() == DType::kBF16, [&](const auto& path) { ForwardChunk(path, a, seg, head, q0, q1, w); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(ForwardJob);
}

void CheckSegments(std::span<const Segment> segments, int64_t queries, int64_t keys) {
  for (const Segment& g : segments) {
    FATHOM_CHECK(0 <= g.q_begin && g.q_begin < g.q_end && g.q_end <= queries && 0 <= g.k_begin && g.k_end <= keys &&
                     g.k_end - g.k_begin >= g.q_end - g.q_begin,
                 "segment q {}..{} k {}..{}", g.q_begin, g.q_end, g.k_begin, g.k_end);
  }
}

bool CheckMlaInputs(const MlaShape& s, std::span<const Segment> segments, const MlaInputs& in) {
  const auto& [q, kv, k_rope] = in;
  const int64_t tokens = q.dim(0), keys = kv.dim(0);
  FATHOM_CHECK(IsMatrix(q, tokens, s.heads * (s.nope_dim + s.rope_dim)) && IsMatrix(kv, keys, s.heads * (s.nope_dim + s.v_dim)) &&
                   IsMatrix(k_rope, keys, s.rope_dim),
               "q {}, kv {}, k_rope {}", q.shape().ToString(), kv.shape().ToString(), k_rope.shape().ToString());
  FATHOM_CHECK(q.dtype() == kv.dtype() && q.dtype() == k_rope.dtype(), "q, kv and k_rope have one dtype");
  FATHOM_CHECK(s.scale > 0, "scale {}", s.scale);
  CheckSegments(segments, tokens, keys);
  return q.dtype() == DType::kBF16 && HasNativeBF16();
}

void MlaAttentionForward(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in, View o, View lse, Arena& scratch) {
  const MlaForwardArgs a{{in, shape, CheckMlaInputs(shape, segments, in)}, o, lse};
  FATHOM_CHECK(IsMatrix(o, in.q.dim(0), shape.heads * shape.v_dim) && o.dtype() == in.q.dtype(), "o {}", o.shape().ToString());
  FATHOM_CHECK(lse.empty() || (IsMatrix(lse, in.q.dim(0), shape.heads) && lse.dtype() == DType::kF32), "lse {}", lse.shape().ToString());
  const ArenaScope scope(scratch);
  const JobTable chunks(scratch, std::ssize(segments), [&](int64_t i) { return QueryChunks(segments[static_cast<size_t>(i)]); });
  const WorkerScratch<float> workers(scratch, ForwardScratch::Floats(shape));
  // Chunks from the last, which see the most keys, to the first: long jobs start first.
  workers.Run(chunks.size() * shape.heads, [&](int64_t job, float* own) {
    const auto [i, chunk] = chunks.At(chunks.size() - 1 - job / shape.heads);
    const Segment& segment = segments[static_cast<size_t>(i)];
    const auto [begin, end] = QueryChunk(segment, chunk);
    HWY_DYNAMIC_DISPATCH(ForwardJob)(a, segment, job % shape.heads, begin, end, own);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

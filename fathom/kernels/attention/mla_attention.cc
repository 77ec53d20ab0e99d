#include "fathom/kernels/attention/mla_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/attention/mla_attention.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/attention/mla_forward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// What queries from q0 on see of a segment.
struct VisibleKeys : KeyRange {
  Segment segment;
  int64_t q0;
  VisibleKeys(const Segment& s, int64_t begin, int64_t end)
      : KeyRange{s.k_begin, VisibleEnd(s, end - 1) - s.k_begin}, segment(s), q0(begin) {}
  template <class F>
  void WithSight(int64_t i, int64_t queries, int64_t entry, int64_t keys, const F& f) const {
    const BlockSight sight{queries, keys, VisibleEnd(segment, q0 + i) - Row(entry)};
    if (sight.Seen(queries - 1) > 0) f(sight);
  }
};

void ForwardJob(const MlaForwardArgs& a, const Segment& seg, int64_t head, int64_t q0, int64_t q1, float* scratch) {
  const ForwardScratch w(a.shape, scratch);
  WithPath(a.pairs, a.q.dtype() == DType::kBF16,
           [&](const auto& path) { ForwardChunk(path, a, VisibleKeys(seg, q0, q1), head, q0, q1, w); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <utility>

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

void LargestScores(std::span<const Segment> segments, ConstView top, std::span<float> largest) {
  FATHOM_CHECK(top.dtype() == DType::kF32 && top.dim(1) == std::ssize(largest), "top {}", top.shape().ToString());
  ParallelRanges(std::ssize(largest), 16, [&](int64_t begin, int64_t end) {
    std::fill(largest.begin() + begin, largest.begin() + end, -std::numeric_limits<float>::infinity());
    for (const Segment& s : segments) {
      for (int64_t t = s.q_begin; t < s.q_end; ++t) {
        const float* row = top.row<float>(t);
        for (int64_t h = begin; h < end; ++h) largest[static_cast<size_t>(h)] = std::max(largest[static_cast<size_t>(h)], row[h]);
      }
    }
  });
}

void MlaAttentionForward(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in, View o, View lse, Arena& scratch,
                         View top) {
  const MlaForwardArgs a{{in, shape, CheckMlaInputs(shape, segments, in)}, o, lse, top};
  FATHOM_CHECK(IsMatrix(o, in.q.dim(0), shape.heads * shape.v_dim) && o.dtype() == in.q.dtype(), "o {}", o.shape().ToString());
  for (const View& x : {lse, top})
    FATHOM_CHECK(x.empty() || (IsMatrix(x, in.q.dim(0), shape.heads) && x.dtype() == DType::kF32), "lse or top {}", x.shape().ToString());
  const ArenaScope scope(scratch);
  const int64_t most = QueriesPerJob(segments, shape.heads, NumWorkers());
  const JobTable chunks(scratch, std::ssize(segments), [&](int64_t i) { return QueryChunks(segments[static_cast<size_t>(i)], most); });
  const WorkerScratch<float> workers(scratch, ForwardScratch::Floats(shape));
  // Chunks from the last, which see the most keys, to the first: long jobs start first.
  const auto chunk_of = [&](int64_t job) {
    const auto [i, chunk] = chunks.At(chunks.size() - 1 - job / shape.heads);
    const Segment& segment = segments[static_cast<size_t>(i)];
    return std::pair(segment, QueryChunk(segment, most, chunk));
  };
  const auto work_of = [&](int64_t job) {
    const auto [segment, chunk] = chunk_of(job);
    return VisiblePairs(segment, chunk.begin, chunk.end);
  };
  workers.Run(chunks.size() * shape.heads, work_of, [&](int64_t job, float* own) {
    const auto [segment, chunk] = chunk_of(job);
    HWY_DYNAMIC_DISPATCH(ForwardJob)(a, segment, job % shape.heads, chunk.begin, chunk.end, own);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

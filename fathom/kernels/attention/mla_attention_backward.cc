#include "fathom/kernels/attention/mla_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/attention/mla_attention_backward.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/attention/mla_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void StoreKeyGradients(const MlaBackwardArgs& a, int64_t head, int64_t first, int64_t n, const BackwardScratch& w, float* d_rope,
                       bool add_rope) {
  const MlaShape& s = a.shape;
  const int64_t column = head * (s.nope_dim + s.v_dim), wide = PadBlock(s.nope_dim + s.rope_dim);
  for (int64_t j = 0; j < n; ++j) {
    const float* key = w.d_keys + j * wide;
    StoreRow(key, 1, s.nope_dim, RowAt(a.dkv, first + j, column));
    StoreRow(w.d_values + j * PadBlock(s.v_dim), 1, s.v_dim, RowAt(a.dkv, first + j, column + s.nope_dim));
    float* rope = d_rope + (first + j) * s.rope_dim;
    for (int64_t i = 0; i < s.rope_dim; ++i) rope[i] = (add_rope ? rope[i] : 0.0f) + key[s.nope_dim + i];
  }
}

// Among a segment's blocks of queries the first that sees this key.
int64_t FirstQueryBlock(const Segment& seg, int64_t key) {
  const int64_t past = (seg.k_end - seg.k_begin) - (seg.q_end - seg.q_begin);
  return std::max<int64_t>(0, key - seg.k_begin - past) / kQueryBlock * kQueryBlock;
}

template <class Path>
void BackwardHead(const Path& path, const MlaBackwardArgs& a, const Segment& seg, int64_t head, const BackwardScratch& w, float* d_rope,
                  bool add_rope) {
  const int64_t width = a.width(), length = seg.q_end - seg.q_begin;
  PackQueries<Path>(a, seg.q_begin, seg.q_end, head, w);
  BackwardScratch blocks = w;
  for (int64_t first = seg.k_begin; first < seg.k_end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, seg.k_end - first);
    PackKeys<Path>(a, head, KeyRange{0, seg.k_end}, first, n, blocks);
    for (int64_t i = FirstQueryBlock(seg, first); i < length; i += kQueryBlock) {
      const BlockSight sight{std::min(kQueryBlock, length - i), n, VisibleEnd(seg, seg.q_begin + i) - first};
      BackwardBlock(path, a, sight, i, blocks);
    }
    StoreKeyGradients(a, head, first, n, w, d_rope, add_rope);
  }
  for (int64_t i = 0; i < length; ++i) StoreRow(w.dq + i * PadBlock(width), 1, width, RowAt(a.dq, seg.q_begin + i, head * width));
}

// One segment, heads [begin, end). d_rope [T,Dr] F32 of this group of heads is overwritten.
void BackwardJob(const MlaBackwardArgs& a, const Segment& seg, int64_t begin, int64_t end, float* scratch, float* d_rope) {
  const BackwardScratch w(a.shape, seg.q_end - seg.q_begin, scratch);
  WithPath(a.pairs, a.q.dtype() == DType::kBF16, [&](const auto& path) {
    for (int64_t head = begin; head < end; ++head) BackwardHead(path, a, seg, head, w, d_rope, head > begin);
  });
}

void AddRopeRows(const RopeGradientParts& from, const View& dk_rope, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const OutRow out = RowAt(dk_rope, t);
    ForVectors(from.rope_dim, [&](auto at) {
      VF sum = at.Load(from.Group(0) + t * from.rope_dim);
      for (int64_t g = 1; g < from.groups; ++g) sum = hn::Add(sum, at.Load(from.Group(g) + t * from.rope_dim));
      Store(at, sum, out);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/base/threads.h"
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(BackwardJob);
HWY_EXPORT(AddRopeRows);

// Zeros in the rows outside every segment.
void ZeroUncovered(const View& v, const uint8_t* covered) {
  const int64_t bytes = v.dim(1) * DTypeSize(v.dtype());
  ParallelRanges(v.dim(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (!covered[t]) std::memset(v.raw() + t * v.stride() * DTypeSize(v.dtype()), 0, static_cast<size_t>(bytes));
    }
  });
}

}  // namespace

void CheckMlaGradients(const MlaBackwardArgs& a) {
  const DType dtype = a.q.dtype();
  const int64_t tokens = a.q.dim(0);
  FATHOM_CHECK(
      IsMatrix(a.o, tokens, a.shape.heads * a.shape.v_dim) && a.o.shape() == a.d_o.shape() && IsMatrix(a.lse, tokens, a.shape.heads),
      "o {}, d_o {}, lse {}", a.o.shape().ToString(), a.d_o.shape().ToString(), a.lse.shape().ToString());
  FATHOM_CHECK(a.dq.shape() == a.q.shape() && a.dkv.shape() == a.kv.shape(), "dq {}, dkv {}", a.dq.shape().ToString(),
               a.dkv.shape().ToString());
  FATHOM_CHECK(a.dq.dtype() == dtype && a.dkv.dtype() == dtype && a.o.dtype() == dtype && a.d_o.dtype() == dtype,
               "all but lse have one dtype");
}

void AddRopeGradients(const RopeGradientParts& parts, std::span<const Segment> segments, View dk_rope) {
  for (const Segment& s : segments) {
    ParallelRanges(s.k_end - s.k_begin, 64, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(AddRopeRows)(parts, dk_rope, s.k_begin + begin, s.k_begin + end);
    });
  }
}

void MlaAttentionBackward(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in, const MlaOutputs& out,
                          const MlaGradients& gradients, Arena& scratch) {
  const MlaBackwardArgs a{{in, shape, CheckMlaInputs(shape, segments, in)}, out, gradients};
  CheckMlaGradients(a);
  FATHOM_CHECK(a.dk_rope.shape() == a.k_rope.shape() && a.dk_rope.dtype() == a.k_rope.dtype(), "dk_rope {}", a.dk_rope.shape().ToString());
  const int64_t tokens = in.q.dim(0), keys = in.kv.dim(0), count = std::ssize(segments), groups = HeadGroups(shape);
  const ArenaScope scope(scratch);
  uint8_t* covered = scratch.AllocSpan<uint8_t>(tokens).data();
  uint8_t* covered_keys = scratch.AllocSpan<uint8_t>(keys).data();
  std::memset(covered, 0, static_cast<size_t>(tokens));
  std::memset(covered_keys, 0, static_cast<size_t>(keys));
  int64_t longest = 0;
  for (const Segment& s : segments) {
    FATHOM_CHECK(s.q_end - s.q_begin <= s.k_end - s.k_begin, "q {}..{} k {}..{}", s.q_begin, s.q_end, s.k_begin, s.k_end);
    std::memset(covered_keys + s.k_begin, 1, static_cast<size_t>(s.k_end - s.k_begin));
    std::memset(covered + s.q_begin, 1, static_cast<size_t>(s.q_end - s.q_begin));
    longest = std::max(longest, s.q_end - s.q_begin);
  }
  ZeroUncovered(a.dq, covered);
  for (const View& v : {a.dkv, a.dk_rope}) ZeroUncovered(v, covered_keys);
  const RopeGradientParts d_rope{scratch.AllocArray<float>(groups * keys * shape.rope_dim), groups, keys, shape.rope_dim};
  const WorkerScratch<float> workers(scratch, BackwardScratch::Floats(shape, longest));
  workers.Run(count * groups, [&](int64_t job, float* own) {
    const int64_t group = job % groups, begin = shape.heads * group / groups, end = shape.heads * (group + 1) / groups;
    HWY_DYNAMIC_DISPATCH(BackwardJob)
    (a, segments[static_cast<size_t>(job / groups)], begin, end, own, d_rope.Group(group));
  });
  AddRopeGradients(d_rope, segments, a.dk_rope);
}

}  // namespace fathom
#endif  // HWY_ONCE

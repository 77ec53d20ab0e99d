#include "fathom/kernels/mla_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/mla_attention.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/attention_blocks-inl.h"
#include "fathom/kernels/mla_attention_plan.h"

#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void LoadRows(const ConstView& from, int64_t first, int64_t rows, int64_t column, int64_t columns, Block to) {
  for (int64_t i = 0; i < rows; ++i) {
    float* row = to.data + i * to.stride;
    ToF32(RowAt(from, first + i, column), columns, row);
    std::fill(row + columns, row + to.stride, 0.0f);
  }
}

// Keys [first, first + n) of one head, [kKeyBlock, Dn+Dr] and values [kKeyBlock, Dv]; zeros behind n.
void LoadKeys(const MlaAttentionArgs& a, int64_t head, int64_t first, int64_t n, Block keys, Block values) {
  const MlaShape& s = a.shape;
  const int64_t column = head * (s.nope_dim + s.v_dim);
  for (int64_t j = 0; j < n; ++j) {
    float* key = keys.data + j * keys.stride;
    ToF32(RowAt(a.kv, first + j, column), s.nope_dim, key);
    ToF32(RowAt(a.k_rope, first + j), s.rope_dim, key + s.nope_dim);
    std::fill(key + s.nope_dim + s.rope_dim, key + keys.stride, 0.0f);
  }
  LoadRows(a.kv, first, n, column + s.nope_dim, s.v_dim, values);
  std::fill(keys.data + n * keys.stride, keys.data + kKeyBlock * keys.stride, 0.0f);
  std::fill(values.data + n * values.stride, values.data + kKeyBlock * values.stride, 0.0f);
}

// Rows [q0, q1) of a block of queries against keys [first, first + n): o and state move on.
void AttendBlock(const MlaShape& shape, const Segment& seg, int64_t q0, int64_t q1, int64_t first, int64_t n, const ForwardScratch& w, Block q, Block o,
                 RunningSoftmax* state) {
  const int64_t rows = q1 - q0, last = std::min(n, VisibleEnd(seg, q1 - 1) - first), padded = PadBlock(last);
  const Block scores{w.scores, kKeyBlock};
  BlockProduct(rows, last, shape.nope_dim + shape.rope_dim, {q.data, q.stride, 1}, ConstBlock(w.keys_t, kKeyBlock), scores, Into::kOverwrite);
  float factor[kQueryBlock];
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t visible = std::min(n, VisibleEnd(seg, q0 + i) - first);
    float* row = scores.data + i * kKeyBlock;
    if (visible > 0) {
      factor[i] = SoftmaxStep(row, visible, padded, shape.scale, state[i]);
    } else {
      factor[i] = 1;
      std::fill(row, row + padded, 0.0f);
    }
  }
  BlockProduct(rows, shape.v_dim, last, {scores.data, kKeyBlock, 1}, ConstBlock(w.values, PadBlock(shape.v_dim)), o, Into::kScaleAdd, factor);
}

void StoreOutput(const MlaForwardArgs& a, int64_t head, int64_t q0, int64_t rows, Block o, const RunningSoftmax* state) {
  for (int64_t i = 0; i < rows; ++i) {
    FromF32(o.data + i * o.stride, 1 / state[i].sum, a.shape.v_dim, RowAt(a.o, q0 + i, head * a.shape.v_dim));
    if (!a.lse.empty()) a.lse.row<float>(q0 + i)[head] = state[i].largest + std::log(state[i].sum);
  }
}

// Queries [q0, q1) of one segment and head: all their keys, block by block.
void ForwardJob(const MlaForwardArgs& a, const Segment& seg, int64_t head, int64_t q0, int64_t q1, float* scratch) {
  const MlaShape& s = a.shape;
  const ForwardScratch w(s, scratch);
  const int64_t width = s.nope_dim + s.rope_dim, rows = q1 - q0;
  const Block q{w.q, PadBlock(width)}, o{w.o, PadBlock(s.v_dim)}, keys{w.keys, PadBlock(width)}, values{w.values, PadBlock(s.v_dim)};
  RunningSoftmax state[kQueryChunk];
  LoadRows(a.q, q0, rows, head * width, width, q);
  std::fill(o.data, o.data + rows * o.stride, 0.0f);
  for (int64_t first = seg.k_begin, end = VisibleEnd(seg, q1 - 1); first < end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, end - first);
    LoadKeys(a, head, first, n, keys, values);
    TransposeKeys(keys, width, w.keys_t);
    for (int64_t i = 0; i < rows; i += kQueryBlock) {
      const int64_t block_end = std::min(rows, i + kQueryBlock);
      if (VisibleEnd(seg, q0 + block_end - 1) <= first) continue;
      AttendBlock(s, seg, q0 + i, q0 + block_end, first, n, w, {q.data + i * q.stride, q.stride}, {o.data + i * o.stride, o.stride}, state + i);
    }
  }
  StoreOutput(a, head, q0, rows, o, state);
}

// D_i = rowsum(dO_i * O_i), the part of the softmax's derivative that all of a row's scores share.
float OutputDot(const MlaBackwardArgs& a, int64_t t, int64_t head) {
  const InRow d_o = RowAt(a.d_o, t, head * a.shape.v_dim), o = RowAt(a.o, t, head * a.shape.v_dim);
  return static_cast<float>(RowSum(a.shape.v_dim, [&](auto at, VF sum) { return hn::MulAdd(Load(at, d_o), Load(at, o), sum); }));
}

// s raw scores -> p = e^(scale s - lse); dp -> ds = scale p (dp - dot). Zeros from visible to padded.
void SoftmaxGradient(float* s, float* dp, int64_t visible, int64_t padded, float scale, float lse, float dot) {
  const DF d;
  const VF scales = hn::Set(d, scale), shift = hn::Set(d, lse), shared = hn::Set(d, dot);
  visible = std::max<int64_t>(visible, 0);
  ForVectors(visible, [&](auto at) {
    const VF p = ExpF(hn::MulSub(scales, at.Load(s), shift));
    at.Store(p, s);
    at.Store(hn::Mul(hn::Mul(p, scales), hn::Sub(at.Load(dp), shared)), dp);
  });
  std::fill(s + visible, s + padded, 0.0f);
  std::fill(dp + visible, dp + padded, 0.0f);
}

// One block of queries against one block of keys. dk, dv and dq are added to.
void BackwardBlock(const MlaShape& shape, const Segment& seg, int64_t q0, int64_t q1, int64_t first, int64_t n, const BackwardScratch& w) {
  const int64_t rows = q1 - q0, width = shape.nope_dim + shape.rope_dim, begin = q0 - seg.q_begin;
  const int64_t last = std::min(n, VisibleEnd(seg, q1 - 1) - first), padded = PadBlock(last);
  const int64_t wide = PadBlock(width), v_wide = PadBlock(shape.v_dim);
  const float *q = w.q + begin * wide, *d_o = w.d_o + begin * v_wide;
  BlockProduct(rows, last, width, {q, wide, 1}, ConstBlock(w.keys_t, kKeyBlock), {w.scores, kKeyBlock}, Into::kOverwrite);
  BlockProduct(rows, last, shape.v_dim, {d_o, v_wide, 1}, ConstBlock(w.values_t, kKeyBlock), {w.d_scores, kKeyBlock}, Into::kOverwrite);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t visible = std::min(n, VisibleEnd(seg, q0 + i) - first);
    SoftmaxGradient(w.scores + i * kKeyBlock, w.d_scores + i * kKeyBlock, visible, padded, shape.scale, w.lse[begin + i], w.dot[begin + i]);
  }
  BlockProduct(last, shape.v_dim, rows, {w.scores, 1, kKeyBlock}, ConstBlock(d_o, v_wide), {w.d_values, v_wide}, Into::kAdd);
  BlockProduct(last, width, rows, {w.d_scores, 1, kKeyBlock}, ConstBlock(q, wide), {w.d_keys, wide}, Into::kAdd);
  BlockProduct(rows, width, last, {w.d_scores, kKeyBlock, 1}, ConstBlock(w.keys, wide), {w.dq + begin * wide, wide}, Into::kAdd);
}

void StoreKeyGradients(const MlaBackwardArgs& a, int64_t head, int64_t first, int64_t n, const BackwardScratch& w, float* d_rope, bool add_rope) {
  const MlaShape& s = a.shape;
  const int64_t column = head * (s.nope_dim + s.v_dim), wide = PadBlock(s.nope_dim + s.rope_dim);
  for (int64_t j = 0; j < n; ++j) {
    const float* key = w.d_keys + j * wide;
    FromF32(key, 1, s.nope_dim, RowAt(a.dkv, first + j, column));
    FromF32(w.d_values + j * PadBlock(s.v_dim), 1, s.v_dim, RowAt(a.dkv, first + j, column + s.nope_dim));
    float* rope = d_rope + (first + j) * s.rope_dim;
    for (int64_t i = 0; i < s.rope_dim; ++i) rope[i] = (add_rope ? rope[i] : 0.0f) + key[s.nope_dim + i];
  }
}

// One segment and head. d_rope [T,Dr] F32, this job's group of heads: overwritten or added to.
void BackwardJob(const MlaBackwardArgs& a, const Segment& seg, int64_t head, float* scratch, float* d_rope, bool add_rope) {
  const MlaShape& s = a.shape;
  const int64_t width = s.nope_dim + s.rope_dim, length = seg.q_end - seg.q_begin, wide = PadBlock(width), v_wide = PadBlock(s.v_dim);
  const BackwardScratch w(s, length, scratch);
  LoadRows(a.q, seg.q_begin, length, head * width, width, {w.q, wide});
  LoadRows(a.d_o, seg.q_begin, length, head * s.v_dim, s.v_dim, {w.d_o, v_wide});
  std::fill(w.dq, w.dq + length * wide, 0.0f);
  for (int64_t i = 0; i < length; ++i) {
    w.dot[i] = OutputDot(a, seg.q_begin + i, head);
    w.lse[i] = a.lse.row<float>(seg.q_begin + i)[head];
  }
  for (int64_t first = seg.k_begin; first < seg.k_end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, seg.k_end - first);
    LoadKeys(a, head, first, n, {w.keys, wide}, {w.values, v_wide});
    TransposeKeys(ConstBlock(w.keys, wide), width, w.keys_t);
    TransposeKeys(ConstBlock(w.values, v_wide), s.v_dim, w.values_t);
    std::fill(w.d_keys, w.d_keys + kKeyBlock * wide, 0.0f);
    std::fill(w.d_values, w.d_values + kKeyBlock * v_wide, 0.0f);
    for (int64_t q0 = seg.q_begin + (first - seg.k_begin); q0 < seg.q_end; q0 += kQueryBlock) {
      BackwardBlock(s, seg, q0, std::min(seg.q_end, q0 + kQueryBlock), first, n, w);
    }
    StoreKeyGradients(a, head, first, n, w, d_rope, add_rope);
  }
  for (int64_t i = 0; i < length; ++i) FromF32(w.dq + i * wide, 1, width, RowAt(a.dq, seg.q_begin + i, head * width));
}

// dk_rope of rows [begin, end): the groups' parts, in order; zero gradients for rows outside every segment.
void FinishRows(const MlaBackwardArgs& a, const uint8_t* covered, const float* d_rope, int64_t groups, int64_t begin, int64_t end) {
  const int64_t width = a.shape.rope_dim, tokens = a.q.dim(0);
  const auto zero = [](const OutRow& row, int64_t n) { std::memset(row.data, 0, static_cast<size_t>(n * DTypeSize(row.dtype))); };
  for (int64_t t = begin; t < end; ++t) {
    if (!covered[t]) {
      zero(RowAt(a.dq, t), a.dq.dim(1));
      zero(RowAt(a.dkv, t), a.dkv.dim(1));
      zero(RowAt(a.dk_rope, t), width);
      continue;
    }
    const OutRow out = RowAt(a.dk_rope, t);
    ForVectors(width, [&](auto at) {
      VF sum = at.Load(d_rope + t * width);
      for (int64_t g = 1; g < groups; ++g) sum = hn::Add(sum, at.Load(d_rope + (g * tokens + t) * width));
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
#include "fathom/kernels/rows.h"

namespace fathom {
namespace {
HWY_EXPORT(ForwardJob);
HWY_EXPORT(BackwardJob);
HWY_EXPORT(FinishRows);

// Heads of a group share one partial dk_rope; their number is fixed, so the order of the sum is.
constexpr int64_t kMaxGroups = 32;
int64_t HeadGroups(const MlaShape& shape) { return std::min(shape.heads, kMaxGroups); }

void CheckInputs(const MlaAttentionArgs& a, std::span<const Segment> segments) {
  const MlaShape& s = a.shape;
  const int64_t tokens = a.q.dim(0), keys = a.kv.dim(0);
  FATHOM_CHECK(IsMatrix(a.q, tokens, s.heads * (s.nope_dim + s.rope_dim)) && IsMatrix(a.kv, keys, s.heads * (s.nope_dim + s.v_dim)) &&
                   IsMatrix(a.k_rope, keys, s.rope_dim),
               "q {}, kv {}, k_rope {}", a.q.shape().ToString(), a.kv.shape().ToString(), a.k_rope.shape().ToString());
  FATHOM_CHECK(a.q.dtype() == a.kv.dtype() && a.q.dtype() == a.k_rope.dtype(), "q, kv and k_rope have one dtype");
  for (const Segment& g : segments) {
    FATHOM_CHECK(0 <= g.q_begin && g.q_begin < g.q_end && g.q_end <= tokens && 0 <= g.k_begin && g.k_end <= keys &&
                     g.k_end - g.k_begin >= g.q_end - g.q_begin,
                 "segment q {}..{} k {}..{}", g.q_begin, g.q_end, g.k_begin, g.k_end);
  }
}

}  // namespace

void MlaAttentionForward(const MlaShape& shape, std::span<const Segment> segments, ConstView q, ConstView kv, ConstView k_rope, View o, View lse,
                         Arena& scratch) {
  const MlaForwardArgs a{{shape, q, kv, k_rope}, o, lse};
  CheckInputs(a, segments);
  FATHOM_CHECK(IsMatrix(o, q.dim(0), shape.heads * shape.v_dim) && o.dtype() == q.dtype(), "o {}", o.shape().ToString());
  FATHOM_CHECK(lse.empty() || (IsMatrix(lse, q.dim(0), shape.heads) && lse.dtype() == DType::kF32), "lse {}", lse.shape().ToString());
  const ArenaScope scope(scratch);
  const int64_t count = std::ssize(segments), each = ForwardScratch::Floats(shape);
  int64_t* first = scratch.AllocArray<int64_t>(count + 1);
  float* workers = scratch.AllocArray<float>(NumWorkers() * each);
  first[0] = 0;
  for (int64_t i = 0; i < count; ++i) first[i + 1] = first[i] + QueryChunks(segments[static_cast<size_t>(i)]);
  // Chunks from the last, which see the most keys, to the first: long jobs start first.
  ParallelWorkerJobs(first[count] * shape.heads, [&](int64_t job, int worker) {
    const int64_t chunk = first[count] - 1 - job / shape.heads;
    const int64_t i = std::upper_bound(first, first + count + 1, chunk) - first - 1;
    const Segment& segment = segments[static_cast<size_t>(i)];
    const auto [begin, end] = QueryChunk(segment, chunk - first[i]);
    HWY_DYNAMIC_DISPATCH(ForwardJob)(a, segment, job % shape.heads, begin, end, workers + worker * each);
  });
}

void MlaAttentionBackward(const MlaShape& shape, std::span<const Segment> segments, ConstView q, ConstView kv, ConstView k_rope, ConstView o,
                          ConstView lse, ConstView d_o, View dq, View dkv, View dk_rope, Arena& scratch) {
  const MlaBackwardArgs a{{shape, q, kv, k_rope}, o, lse, d_o, dq, dkv, dk_rope};
  const int64_t tokens = q.dim(0), count = std::ssize(segments), groups = HeadGroups(shape);
  CheckInputs(a, segments);
  FATHOM_CHECK(IsMatrix(o, tokens, shape.heads * shape.v_dim) && o.shape() == d_o.shape() && IsMatrix(lse, tokens, shape.heads), "o {}, d_o {}, lse {}",
               o.shape().ToString(), d_o.shape().ToString(), lse.shape().ToString());
  FATHOM_CHECK(dq.shape() == q.shape() && dkv.shape() == kv.shape() && dk_rope.shape() == k_rope.shape() && kv.dim(0) == tokens, "dq {}, dkv {}, dk_rope {}",
               dq.shape().ToString(), dkv.shape().ToString(), dk_rope.shape().ToString());
  FATHOM_CHECK(dq.dtype() == q.dtype() && dkv.dtype() == q.dtype() && dk_rope.dtype() == q.dtype() && o.dtype() == q.dtype() && d_o.dtype() == q.dtype(),
               "all but lse have one dtype");
  const ArenaScope scope(scratch);
  uint8_t* covered = scratch.AllocArray<uint8_t>(tokens);
  std::memset(covered, 0, static_cast<size_t>(tokens));
  int64_t longest = 0;
  for (const Segment& s : segments) {
    FATHOM_CHECK(s.q_begin == s.k_begin && s.q_end == s.k_end, "training attends to the same tokens: q {}..{} k {}..{}", s.q_begin, s.q_end, s.k_begin,
                 s.k_end);
    std::memset(covered + s.q_begin, 1, static_cast<size_t>(s.q_end - s.q_begin));
    longest = std::max(longest, s.q_end - s.q_begin);
  }
  const int64_t each = BackwardScratch::Floats(shape, longest);
  float* d_rope = scratch.AllocArray<float>(groups * tokens * shape.rope_dim);
  float* workers = scratch.AllocArray<float>(NumWorkers() * each);
  ParallelWorkerJobs(count * groups, [&](int64_t job, int worker) {
    const int64_t group = job % groups, begin = shape.heads * group / groups, end = shape.heads * (group + 1) / groups;
    for (int64_t head = begin; head < end; ++head) {
      HWY_DYNAMIC_DISPATCH(BackwardJob)
      (a, segments[static_cast<size_t>(job / groups)], head, workers + worker * each, d_rope + group * tokens * shape.rope_dim, head > begin);
    }
  });
  ParallelRanges(tokens, 64, [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(FinishRows)(a, covered, d_rope, groups, begin, end); });
}

int64_t MlaAttentionScratchBytes(const MlaShape& shape, int64_t tokens) {
  const int64_t workers = NumThreads(), align = 64 * 8;
  const int64_t forward = (tokens + 1) * 8 + workers * ForwardScratch::Floats(shape) * 4;
  const int64_t backward = tokens + (HeadGroups(shape) * tokens * shape.rope_dim + workers * BackwardScratch::Floats(shape, tokens)) * 4;
  return std::max(forward, backward) + align;
}

}  // namespace fathom
#endif  // HWY_ONCE

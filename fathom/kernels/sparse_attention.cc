#include "fathom/kernels/sparse_attention.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/sparse_attention.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/gather_rows-inl.h"
#include "fathom/kernels/sparse_attention_plan.h"

#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// s [n] raw scores -> e^(scale s - largest); returns the largest score times log2(e) and the sum.
std::pair<float, float> SoftmaxRow(float* s, int64_t n, float log2_scale) {
  const DF d;
  const VF scale = hn::Set(d, log2_scale);
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) top = std::max(top, s[i]);
  top *= log2_scale;
  const double sum = RowSum(n, [&](auto at, VF total) {
    const VF p = at.Mask(Exp2NonPositive(hn::MulSub(scale, at.Load(s), hn::Set(d, top))));
    at.Store(p, s);
    return hn::Add(total, p);
  });
  return {top, static_cast<float>(sum)};
}

template <class E>
void ForwardQuery(const SparseForwardArgs& a, const HeadRows<E>& rows, int64_t t, const SparseScratch& w) {
  const MlaShape& s = a.shape;
  const std::span<const int32_t> list = a.choice.Of(t);
  CopyRow(RowAt(a.q, t, rows.head * a.width()), a.width(), w.q);
  GatherScores(rows, list, w.q, w.scores);
  const auto [top, sum] = SoftmaxRow(w.scores, std::ssize(list), s.scale * kLog2E);
  std::fill(w.o, w.o + s.v_dim, 0.0f);
  for (size_t j = 0; j < list.size(); ++j) AddScaled(rows.Value(list[j]), w.scores[j], s.v_dim, w.o);
  StoreRow(w.o, 1 / sum, s.v_dim, RowAt(a.o, t, rows.head * s.v_dim));
  if (!a.lse.empty()) a.lse.row<float>(t)[rows.head] = top * kLn2 + std::log(sum);
}

void SparseForwardJob(const SparseForwardArgs& a, int64_t head, int64_t q0, int64_t q1, float* scratch) {
  const SparseScratch w(a.shape, a.choice.k, scratch);
  const auto run = [&](auto rows) {
    for (int64_t t = q0; t < q1; ++t) ForwardQuery(a, rows, t, w);
  };
  if (a.q.dtype() == DType::kF32) return run(HeadRows<float>{a.kv, a.k_rope, a.shape, head});
  run(HeadRows<BF16>{a.kv, a.k_rope, a.shape, head});
}

// dS_j = scale p_j (dO V_j - D), and what follows from it; keys count from the segment's first.
template <class E>
void BackwardQuery(const SparseBackwardArgs& a, const HeadRows<E>& rows, const Segment& seg, int64_t t, const SparseScratch& w, const KeyGradients& d) {
  const MlaShape& s = a.shape;
  const int64_t width = a.width(), head = rows.head;
  const std::span<const int32_t> list = a.choice.Of(t);
  CopyRow(RowAt(a.q, t, head * width), width, w.q);
  CopyRow(RowAt(a.d_o, t, head * s.v_dim), s.v_dim, w.d_o);
  CopyRow(RowAt(a.o, t, head * s.v_dim), s.v_dim, w.o);
  const float dot = LanesSum(Dot(w.o, w.d_o, s.v_dim, hn::Zero(DF()))), lse = a.lse.row<float>(t)[head] * kLog2E;
  GatherScores(rows, list, w.q, w.scores);
  const VF log2_scale = hn::Set(DF(), s.scale * kLog2E), shift = hn::Set(DF(), lse);
  ForVectors(std::ssize(list), [&](auto at) { at.Store(Exp2NonPositive(hn::MulSub(log2_scale, at.Load(w.scores), shift)), w.scores); });
  std::fill(w.dq, w.dq + width, 0.0f);
  for (size_t j = 0; j < list.size(); ++j) {
    const int64_t row = list[j];
    const float p = w.scores[j], dp = LanesSum(Dot(rows.Value(row), w.d_o, s.v_dim, hn::Zero(DF())));
    const float ds = s.scale * p * (dp - dot);
    AddScaled(w.d_o, p, s.v_dim, d.Value(row - seg.k_begin));
    AddScaled(w.q, ds, width, d.Key(row - seg.k_begin));
    AddScaled(rows.Nope(row), ds, s.nope_dim, w.dq);
    AddScaled(rows.Rope(row), ds, s.rope_dim, w.dq + s.nope_dim);
  }
  StoreRow(w.dq, 1, width, RowAt(a.dq, t, head * width));
}

void StoreGradients(const SparseBackwardArgs& a, const Segment& seg, int64_t head, const KeyGradients& d, float* d_rope, bool add_rope) {
  const MlaShape& s = a.shape;
  const int64_t column = head * (s.nope_dim + s.v_dim);
  for (int64_t j = 0; j < seg.k_end - seg.k_begin; ++j) {
    const int64_t row = seg.k_begin + j;
    StoreRow(d.Key(j), 1, s.nope_dim, RowAt(a.dkv, row, column));
    StoreRow(d.Value(j), 1, s.v_dim, RowAt(a.dkv, row, column + s.nope_dim));
    float* rope = d_rope + row * s.rope_dim;
    for (int64_t i = 0; i < s.rope_dim; ++i) rope[i] = (add_rope ? rope[i] : 0.0f) + d.Key(j)[s.nope_dim + i];
  }
}

// One segment, heads [begin, end). d_rope [T,Dr] F32 of this group of heads is overwritten.
void SparseBackwardJob(const SparseBackwardArgs& a, const Segment& seg, int64_t begin, int64_t end, float* scratch, float* d_rope) {
  const SparseScratch w(a.shape, a.choice.k, scratch);
  const KeyGradients d{a.shape, scratch + w.floats};
  const auto run = [&](auto rows) {
    std::fill(d.base, d.base + KeyGradients::Floats(a.shape, seg.k_end - seg.k_begin), 0.0f);
    for (int64_t t = seg.q_begin; t < seg.q_end; ++t) BackwardQuery(a, rows, seg, t, w, d);
    StoreGradients(a, seg, rows.head, d, d_rope, rows.head > begin);
  };
  for (int64_t head = begin; head < end; ++head) {
    if (a.q.dtype() == DType::kF32) {
      run(HeadRows<float>{a.kv, a.k_rope, a.shape, head});
    } else {
      run(HeadRows<BF16>{a.kv, a.k_rope, a.shape, head});
    }
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
HWY_EXPORT(SparseForwardJob);
HWY_EXPORT(SparseBackwardJob);

// Every query of the segment has chosen all that it sees. Checks the lists' ends on the way.
bool ChoosesAll(const Segment& s, const Choice& choice) {
  bool all = true;
  for (int64_t t = s.q_begin; t < s.q_end; ++t) {
    const std::span<const int32_t> list = choice.Of(t);
    FATHOM_CHECK(!list.empty() && list.front() >= s.k_begin && list.back() < VisibleEnd(s, t), "query {}: chosen {} of keys {}..{}", t, list.size(),
                 s.k_begin, VisibleEnd(s, t));
    all = all && std::ssize(list) == VisibleEnd(s, t) - s.k_begin;
  }
  return all;
}

// The segments that the dense kernel takes, and the rest.
struct Division {
  std::span<Segment> dense, sparse;
  Division(std::span<const Segment> segments, const Choice& choice, Arena& scratch) {
    Segment* copy = scratch.AllocArray<Segment>(std::ssize(segments));
    std::copy(segments.begin(), segments.end(), copy);
    Segment* middle = std::stable_partition(copy, copy + segments.size(), [&](const Segment& s) { return ChoosesAll(s, choice); });
    dense = {copy, middle};
    sparse = {middle, copy + segments.size()};
  }
};

}  // namespace

void SparseAttentionForward(const MlaShape& shape, std::span<const Segment> segments, std::span<const int32_t> chosen, int64_t k, ConstView q,
                            ConstView kv, ConstView k_rope, View o, View lse, Arena& scratch) {
  const SparseForwardArgs a{{{shape, q, kv, k_rope, CheckMlaInputs(shape, segments, q, kv, k_rope)}, o, lse}, {chosen, k}};
  FATHOM_CHECK(k > 0 && std::ssize(chosen) == q.dim(0) * k, "{} chosen, k {}", chosen.size(), k);
  FATHOM_CHECK(IsMatrix(o, q.dim(0), shape.heads * shape.v_dim) && o.dtype() == q.dtype(), "o {}", o.shape().ToString());
  const ArenaScope scope(scratch);
  const Division division(segments, a.choice, scratch);
  MlaAttentionForward(shape, division.dense, q, kv, k_rope, o, lse, scratch);
  const int64_t each = SparseScratch::Floats(shape, k);
  float* workers = scratch.AllocArray<float>(NumWorkers() * each);
  for (const Segment& s : division.sparse) {
    // Heads outside, so that neighbouring queries find their head's rows in cache.
    const int64_t chunks = (s.q_end - s.q_begin + kSparseChunk - 1) / kSparseChunk;
    ParallelWorkerJobs(chunks * shape.heads, [&](int64_t job, int worker) {
      const int64_t begin = s.q_begin + job % chunks * kSparseChunk;
      HWY_DYNAMIC_DISPATCH(SparseForwardJob)(a, job / chunks, begin, std::min(s.q_end, begin + kSparseChunk), workers + worker * each);
    });
  }
}

void SparseAttentionBackward(const MlaShape& shape, std::span<const Segment> segments, std::span<const int32_t> chosen, int64_t k, ConstView q,
                             ConstView kv, ConstView k_rope, ConstView o, ConstView lse, ConstView d_o, View dq, View dkv, View dk_rope,
                             Arena& scratch) {
  const SparseBackwardArgs a{{{shape, q, kv, k_rope, CheckMlaInputs(shape, segments, q, kv, k_rope)}, o, lse, d_o, dq, dkv, dk_rope}, {chosen, k}};
  CheckMlaGradients(a);
  FATHOM_CHECK(k > 0 && std::ssize(chosen) == q.dim(0) * k, "{} chosen, k {}", chosen.size(), k);
  const ArenaScope scope(scratch);
  const Division division(segments, a.choice, scratch);
  MlaAttentionBackward(shape, division.dense, q, kv, k_rope, o, lse, d_o, dq, dkv, dk_rope, scratch);  // zeros all other rows
  int64_t longest = 0;
  for (const Segment& s : division.sparse) {
    FATHOM_CHECK(s.q_begin == s.k_begin && s.q_end == s.k_end, "training attends to the same tokens");
    longest = std::max(longest, s.k_end - s.k_begin);
  }
  const int64_t groups = HeadGroups(shape), each = SparseScratch::Floats(shape, k) + KeyGradients::Floats(shape, longest);
  const RopeGradientParts d_rope{scratch.AllocArray<float>(groups * q.dim(0) * shape.rope_dim), groups, q.dim(0), shape.rope_dim};
  float* workers = scratch.AllocArray<float>(NumWorkers() * each);
  ParallelWorkerJobs(std::ssize(division.sparse) * groups, [&](int64_t job, int worker) {
    const int64_t group = job % groups, begin = shape.heads * group / groups, end = shape.heads * (group + 1) / groups;
    HWY_DYNAMIC_DISPATCH(SparseBackwardJob)
    (a, division.sparse[static_cast<size_t>(job / groups)], begin, end, workers + worker * each, d_rope.Group(group));
  });
  AddRopeGradients(d_rope, division.sparse, dk_rope);
}

int64_t SparseAttentionScratchBytes(const MlaShape& shape, int64_t tokens, int64_t k) {
  const int64_t worker = SparseScratch::Floats(shape, k) + KeyGradients::Floats(shape, tokens);
  const int64_t own = (NumThreads() * worker + HeadGroups(shape) * tokens * shape.rope_dim) * 4;
  return std::max(own, MlaAttentionScratchBytes(shape, tokens)) + tokens * static_cast<int64_t>(sizeof(Segment)) + 64 * 8;
}

}  // namespace fathom
#endif  // HWY_ONCE

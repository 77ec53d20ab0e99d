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
int64_t FirstQueryBlock(const Segment& seg, int64_t key) { return FirstSeeingQuery(seg, key) / kQueryBlock * kQueryBlock; }

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

// One head's gradients of queries from `begin` on of a segment, or those of keys from `begin` on. Blocks meet in the order of the whole
// job and have their sums in the same places of it, so the bits are its.
template <class Path>
void BackwardOfQueries(const Path& path, const MlaBackwardArgs& a, const Segment& seg, int64_t head, const IndexRange& queries,
                       const BackwardScratch& w) {
  const int64_t width = a.width(), length = seg.q_end - seg.q_begin, last = VisibleEnd(seg, seg.q_begin + queries.end - 1);
  PackQueries<Path>(a, seg.q_begin + queries.begin, seg.q_begin + queries.end, head, w);
  BackwardScratch blocks = w;
  for (int64_t first = seg.k_begin; first < last; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, seg.k_end - first);
    PackKeys<Path>(a, head, KeyRange{0, seg.k_end}, first, n, blocks);
    for (int64_t i = std::max(queries.begin, FirstQueryBlock(seg, first)); i < queries.end; i += kQueryBlock) {
      const BlockSight sight{std::min(kQueryBlock, length - i), n, VisibleEnd(seg, seg.q_begin + i) - first};
      ScoreGradients<Path>(a, sight, i - queries.begin, blocks);
      AddToQueries(path, a, sight, i - queries.begin, blocks);
    }
  }
  for (int64_t i = queries.begin; i < queries.end; ++i)
    StoreRow(w.dq + (i - queries.begin) * PadBlock(width), 1, width, RowAt(a.dq, seg.q_begin + i, head * width));
}

template <class Path>
void BackwardOfKeys(const Path& path, const MlaBackwardArgs& a, const Segment& seg, int64_t head, const IndexRange& keys,
                    const BackwardScratch& w, float* d_rope) {
  const int64_t length = seg.q_end - seg.q_begin, begin = FirstQueryBlock(seg, seg.k_begin + keys.begin);
  PackQueries<Path>(a, seg.q_begin + begin, seg.q_end, head, w);
  BackwardScratch blocks = w;
  for (int64_t first = seg.k_begin + keys.begin; first < seg.k_begin + keys.end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, seg.k_end - first);
    PackKeys<Path>(a, head, KeyRange{0, seg.k_end}, first, n, blocks);
    for (int64_t i = FirstQueryBlock(seg, first); i < length; i += kQueryBlock) {
      const BlockSight sight{std::min(kQueryBlock, length - i), n, VisibleEnd(seg, seg.q_begin + i) - first};
      ScoreGradients<Path>(a, sight, i - begin, blocks);
      AddToKeys(path, a, sight, i - begin, blocks);
    }
    StoreKeyGradients(a, head, first, n, w, d_rope, false);
  }
}

void BackwardPartJob(const MlaBackwardArgs& a, const Segment& seg, int64_t head, const BackwardPart& part, float* scratch, float* d_rope) {
  const BackwardScratch w(a.shape, seg.q_end - seg.q_begin, scratch);
  WithPath(a.pairs, a.q.dtype() == DType::kBF16, [&](const auto& path) {
    part.of_keys ? BackwardOfKeys(path, a, seg, head, part.range, w, d_rope) : BackwardOfQueries(path, a, seg, head, part.range, w);
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
#include <functional>

#include "fathom/base/threads.h"
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(BackwardJob);
HWY_EXPORT(BackwardPartJob);
HWY_EXPORT(AddRopeRows);

// Zeros in the rows outside every segment.
void ZeroUncovered(const View& v, const uint8_t* covered) {
  if (std::all_of(covered, covered + v.dim(0), [](uint8_t row) { return row != 0; })) return;
  const int64_t bytes = v.dim(1) * DTypeSize(v.dtype());
  ParallelRanges(v.dim(0), RowGrain(v.dim(1)), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (!covered[t]) std::memset(v.raw() + t * v.stride() * DTypeSize(v.dtype()), 0, static_cast<size_t>(bytes));
    }
  });
}

// A job for each group of heads and segment.
void RunHeads(const MlaBackwardArgs& a, std::span<const Segment> segments, const RopeGradientParts& d_rope,
              const WorkerScratch<float>& workers) {
  const int64_t groups = d_rope.groups;
  const auto work_of = [&](int64_t job) {
    const Segment& s = segments[static_cast<size_t>(job / groups)];
    return VisiblePairs(s, s.q_begin, s.q_end);
  };
  workers.Run(std::ssize(segments) * groups, work_of, [&](int64_t job, float* own) {
    const int64_t group = job % groups;
    const auto [begin, end] = OwnRange(a.shape.heads, group, groups);
    HWY_DYNAMIC_DISPATCH(BackwardJob)
    (a, segments[static_cast<size_t>(job / groups)], begin, end, own, d_rope.Group(group));
  });
}

// A job for each head and part.
void RunParts(const MlaBackwardArgs& a, std::span<const Segment> segments, const RopeGradientParts& d_rope,
              const WorkerScratch<float>& workers, Arena& scratch) {
  const std::span<const BackwardPart> parts = BackwardParts(segments, a.shape.heads, NumWorkers(), scratch);
  const int64_t heads = a.shape.heads;
  const auto part_of = [&](int64_t job) { return parts[static_cast<size_t>(job / heads)]; };
  workers.Run(
      std::ssize(parts) * heads, [&](int64_t job) { return part_of(job).work; },
      [&](int64_t job, float* own) {
        const BackwardPart& part = part_of(job);
        HWY_DYNAMIC_DISPATCH(BackwardPartJob)
        (a, segments[static_cast<size_t>(part.segment)], job % heads, part, own, d_rope.Group(job % heads));
      });
}

}  // namespace

// Two scores and the gradients of keys and values; two scores and the gradient of queries.
constexpr double kKeysWork = 4, kQueriesWork = 3;

bool IsBetterInParts(std::span<const Segment> segments, int64_t heads, int64_t threads) {
  double total = 0, longest = 0;
  for (const Segment& s : segments) {
    const double pairs = VisiblePairs(s, s.q_begin, s.q_end);
    total += pairs * static_cast<double>(heads);
    longest = std::max(longest, pairs);
  }
  const double busiest = std::max(Unevenness(std::ssize(segments) * heads, threads), longest * static_cast<double>(threads) / total);
  return busiest > kEvenEnough * (kKeysWork + kQueriesWork) / (kKeysWork + kQueriesWork - 2);
}

std::span<const BackwardPart> BackwardParts(std::span<const Segment> segments, int64_t heads, int64_t threads, Arena& scratch) {
  int64_t blocks = 0;
  double total = 0;
  for (const Segment& s : segments) {
    blocks += QueryBlocks(s.q_end - s.q_begin) + QueryBlocks(s.k_end - s.k_begin);
    total += (kKeysWork + kQueriesWork) * VisiblePairs(s, s.q_begin, s.q_end);
  }
  const double enough = total * static_cast<double>(heads) / static_cast<double>(kJobsPerThread * threads);
  const std::span<BackwardPart> parts = scratch.AllocSpan<BackwardPart>(blocks);
  size_t count = 0;
  // Blocks of [0, n) one after the other, until a part has enough.
  const auto cut = [&](int64_t segment, bool of_keys, int64_t n, const auto& work_of) {
    BackwardPart part{segment, of_keys, {0, 0}, 0};
    while (part.range.end < n) {
      const int64_t end = std::min(n, part.range.end + kQueryBlock);
      part.work += work_of(part.range.end, end);
      part.range.end = end;
      if (part.work < enough && end < n) continue;
      parts[count++] = part;
      part = {segment, of_keys, {end, end}, 0};
    }
  };
  for (int64_t i = 0; i < std::ssize(segments); ++i) {
    const Segment& s = segments[static_cast<size_t>(i)];
    cut(i, false, s.q_end - s.q_begin,
        [&](int64_t begin, int64_t end) { return kQueriesWork * VisiblePairs(s, s.q_begin + begin, s.q_begin + end); });
    cut(i, true, s.k_end - s.k_begin, [&](int64_t begin, int64_t end) {
      return kKeysWork * static_cast<double>((end - begin) * (s.q_end - s.q_begin - FirstSeeingQuery(s, s.k_begin + begin)));
    });
  }
  std::ranges::stable_sort(parts.first(count), std::greater(), &BackwardPart::work);
  return parts.first(count);
}

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
    ParallelRanges(s.k_end - s.k_begin, RowGrain(parts.groups * parts.rope_dim), [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(AddRopeRows)(parts, dk_rope, s.k_begin + begin, s.k_begin + end);
    });
  }
}

void MlaAttentionBackward(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in, const MlaOutputs& out,
                          const MlaGradients& gradients, Arena& scratch) {
  const MlaBackwardArgs a{{in, shape, CheckMlaInputs(shape, segments, in)}, out, gradients};
  CheckMlaGradients(a);
  FATHOM_CHECK(a.dk_rope.shape() == a.k_rope.shape() && a.dk_rope.dtype() == a.k_rope.dtype(), "dk_rope {}", a.dk_rope.shape().ToString());
  const int64_t tokens = in.q.dim(0), keys = in.kv.dim(0), groups = HeadGroups(shape);
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
  if (groups == shape.heads && IsBetterInParts(segments, groups, NumWorkers())) {
    RunParts(a, segments, d_rope, workers, scratch);
  } else {
    RunHeads(a, segments, d_rope, workers);
  }
  AddRopeGradients(d_rope, segments, a.dk_rope);
}

}  // namespace fathom
#endif  // HWY_ONCE

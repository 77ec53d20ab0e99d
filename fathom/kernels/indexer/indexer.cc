#include "fathom/kernels/indexer/indexer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/indexer/indexer.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/indexer/indexer_blocks-inl.h"
#include "fathom/kernels/indexer/indexer_plan.h"
#include "fathom/kernels/simd/multiply_add-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void PackQuery(const IndexerArgs& a, const IndexerStrip& strip, int64_t query) {
  const int64_t i = query - strip.begin;
  WithPath(a.pairs, false, [&](const auto& path) {
    using Path = std::decay_t<decltype(path)>;
    LoadHeads<Path>(a.q, query, a.shape, {strip.queries + i * a.PanelFloats(), RowStride<Path>(a.shape.head_dim)});
  });
  LoadWeights(a.weights, query, strip.weights + i * PadBlock(a.shape.heads));
}

// What heads [0, kM) add to the sums over heads of kN vectors of keys, head after head; NaN where a dot is: Max may drop it.
template <class Kind, int kM, int kN>
HWY_INLINE void AddHeads(int64_t steps, ConstBlock heads, const float* weights, ConstBlock keys_t, VF (&sum)[kN]) {
  const DF d;
  VF dots[kM][kN];
#pragma GCC unroll 8
  for (auto& row : dots) std::fill_n(row, kN, hn::Zero(d));
  for (int64_t k = 0; k < steps; ++k) {
    VF keys[kN];
#pragma GCC unroll 8
    for (int v = 0; v < kN; ++v) keys[v] = hn::LoadU(d, keys_t.data + k * keys_t.stride + v * LanesF());
#pragma GCC unroll 8
    for (int h = 0; h < kM; ++h) {
      const VF query = hn::Set(d, heads.data[h * heads.stride + k]);
#pragma GCC unroll 8
      for (int v = 0; v < kN; ++v) dots[h][v] = Kind::MulAdd(query, keys[v], dots[h][v]);
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < kM; ++h) {
    const VF weight = hn::Set(d, weights[h]);
#pragma GCC unroll 8
    for (int v = 0; v < kN; ++v) {
      sum[v] = hn::MulAdd(weight, hn::IfThenZeroElse(hn::Lt(dots[h][v], hn::Zero(d)), dots[h][v]), sum[v]);
    }
  }
}

// scores[j] = sum_h weights[h] max(0, query_h . key_j) of kN vectors of keys.
template <class Kind, int kN>
void ScoreVectors(const IndexerShape& s, int64_t steps, ConstBlock query, const float* weights, ConstBlock keys_t, float* scores) {
  VF sum[kN];
  std::fill_n(sum, kN, hn::Zero(DF()));
  int64_t h = 0;
  const auto from = [&](int64_t head) { return ConstBlock(query.data + head * query.stride, query.stride); };
  for (; h + 6 <= s.heads; h += 6) AddHeads<Kind, 6, kN>(steps, from(h), weights + h, keys_t, sum);
  for (; h + 4 <= s.heads; h += 4) AddHeads<Kind, 4, kN>(steps, from(h), weights + h, keys_t, sum);
  for (; h < s.heads; ++h) AddHeads<Kind, 1, kN>(steps, from(h), weights + h, keys_t, sum);
  for (int v = 0; v < kN; ++v) StoreF(sum[v], scores + v * LanesF());
}

// Of n keys, which are the lanes; whole vectors are written.
template <class Path>
void ScoreQuery(const IndexerShape& s, int64_t n, ConstBlock query, const float* weights, const float* keys_t, float* scores) {
  using Kind = std::conditional_t<Path::kStep == 1, F32, PairsOfBF16>;
  constexpr int kVectors = HWY_MAX_BYTES == 64 ? 4 : 2;
  const int64_t lanes = LanesF(), steps = Steps<Path>(s.head_dim);
  int64_t j = 0;
  const auto from = [&](int64_t key) { return ConstBlock(keys_t + key, kKeyBlock); };
  for (; j + (kVectors - 1) * lanes < n; j += kVectors * lanes) ScoreVectors<Kind, kVectors>(s, steps, query, weights, from(j), scores + j);
  for (; j < n; j += lanes) ScoreVectors<Kind, 1>(s, steps, query, weights, from(j), scores + j);
}

// Scores of the strip's queries with the segment's keys [first, first + kKeyBlock), counted from its first key. Keys are the lanes.
template <class Path>
void ScoreKeys(const IndexerArgs& a, const IndexerStrip& strip, int64_t first, const IndexerScratch& w) {
  const int64_t stride = RowStride<Path>(a.shape.head_dim);
  const Block keys{w.keys, stride};
  LoadRows<Path>(a.k, strip.KeyRow(first), std::min(kKeyBlock, strip.Keys(strip.end - 1) - first), 0, a.shape.head_dim, kKeyBlock, keys);
  TransposeBlock(keys, kKeyBlock, stride, w.keys_t);
  for (int64_t i = 0; i < strip.end - strip.begin; ++i) {
    const int64_t n = std::min(kKeyBlock, strip.Keys(strip.begin + i) - first);
    if (n <= 0) continue;
    ScoreQuery<Path>(a.shape, n, ConstBlock(strip.queries + i * a.PanelFloats(), stride), strip.weights + i * PadBlock(a.shape.heads),
                     w.keys_t, strip.scores + i * strip.stride + first);
  }
}

void ScoreKeysJob(const IndexerArgs& a, const IndexerStrip& strip, int64_t first, float* scratch) {
  const IndexerScratch w(a.shape, scratch);
  WithPath(a.pairs, false, [&](const auto& path) { ScoreKeys<std::decay_t<decltype(path)>>(a, strip, first, w); });
}

bool AreFinite(const float* scores, int64_t n) {
  const DF d;
  VF zero = hn::Zero(d);  // of each lane, until one is infinite or NaN: times 0 that is NaN
  ForVectors(n, [&](auto at) { zero = hn::MulAdd(hn::Zero(d), at.Load(scores), zero); });
  return hn::AllTrue(d, hn::Eq(zero, hn::Zero(d)));
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <atomic>
#include <cmath>

#include "fathom/kernels/elementwise/topk.h"
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(PackQuery);
HWY_EXPORT(ScoreKeysJob);
HWY_EXPORT(AreFinite);

// The k best scores of n keys from `first` on, in rising order. work: [n].
void ChooseBestOf(const float* scores, int64_t n, int64_t k, int64_t first, int32_t* ids, float* chosen_scores, int32_t* work) {
  TopKSorted({scores, static_cast<size_t>(n)}, k, {ids, static_cast<size_t>(k)}, {work, static_cast<size_t>(n)});
  const int64_t count = std::min(n, k);
  if (chosen_scores != nullptr) {
    std::fill_n(chosen_scores, k, -std::numeric_limits<float>::infinity());
    for (int64_t i = 0; i < count; ++i) {
      if (!std::isnan(scores[ids[i]])) chosen_scores[i] = scores[ids[i]];
    }
  }
  for (int64_t i = 0; i < count; ++i) ids[i] += static_cast<int32_t>(first);
}

void CheckKeys(std::span<const Segment> segments, int64_t queries, int64_t rows, std::span<const BlockTable> tables) {
  if (tables.empty()) return CheckSegments(segments, queries, rows);
  FATHOM_CHECK(tables.size() == segments.size(), "{} tables, {} segments", tables.size(), segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    CheckSegments(segments.subspan(i, 1), queries, std::ssize(tables[i]) * kCacheBlock);
    FATHOM_CHECK(segments[i].k_begin == 0, "keys from {}", segments[i].k_begin);
    for (const int32_t block : tables[i])
      FATHOM_CHECK(0 <= block && (block + 1) * kCacheBlock <= rows, "block {} in a cache of {} rows", block, rows);
  }
}

void ChooseAll(const IndexerStrip& strip, int64_t top_k, std::span<int32_t> chosen) {
  for (int64_t t = strip.begin; t < strip.end; ++t) {
    int32_t* ids = chosen.data() + t * top_k;
    for (int64_t i = 0; i < strip.Keys(t); ++i) ids[i] = static_cast<int32_t>(strip.segment.k_begin + i);
  }
}

// False: a score is not finite.
bool ChooseBest(const IndexerStrip& strip, int64_t top_k, std::span<int32_t> chosen, const View& scores,
                const WorkerScratch<float>& workers) {
  std::atomic<bool> finite = true;
  workers.Run(strip.end - strip.begin, [&](int64_t i, float* own) {
    const int64_t t = strip.begin + i;
    const float* row = strip.scores + i * strip.stride;
    const int64_t n = strip.Keys(t);
    if (!HWY_DYNAMIC_DISPATCH(AreFinite)(row, n)) finite = false;
    ChooseBestOf(row, n, top_k, strip.segment.k_begin, chosen.data() + t * top_k, scores.empty() ? nullptr : scores.row<float>(t),
                 reinterpret_cast<int32_t*>(own));
  });
  return finite;
}

}  // namespace

int64_t FirstCompared(const Segment& s, int64_t top_k) {
  const int64_t queries = s.q_end - s.q_begin, see_all = std::clamp<int64_t>(top_k - (s.k_end - s.k_begin - queries), 0, queries);
  return see_all == queries ? s.q_end : s.q_begin + see_all / kChoiceQueries * kChoiceQueries;
}

bool CheckIndexerInputs(const IndexerInputs& in) {
  const auto& [shape, q, k, weights] = in;
  FATHOM_CHECK(IsMatrix(q, q.dim(0), shape.heads * shape.head_dim) && IsMatrix(k, k.dim(0), shape.head_dim) && q.dtype() == k.dtype(),
               "q {}, k {}", q.shape().ToString(), k.shape().ToString());
  FATHOM_CHECK(IsMatrix(weights, q.dim(0), shape.heads) && weights.dtype() == DType::kF32, "weights {}", weights.shape().ToString());
  return q.dtype() == DType::kBF16 && HasNativeBF16();
}

bool IndexerTopK(const IndexerInputs& in, std::span<const Segment> segments, int64_t top_k, std::span<int32_t> chosen, View scores,
                 Arena& scratch, std::span<const BlockTable> tables) {
  const IndexerArgs a{in, CheckIndexerInputs(in)};
  const int64_t queries = in.q.dim(0);
  FATHOM_CHECK(top_k > 0 && std::ssize(chosen) == queries * top_k, "{} chosen, top_k {}", chosen.size(), top_k);
  FATHOM_CHECK(scores.empty() || (IsMatrix(scores, queries, top_k) && scores.dtype() == DType::kF32), "scores {}",
               scores.shape().ToString());
  CheckKeys(segments, queries, in.k.dim(0), tables);
  const ArenaScope scope(scratch);
  int64_t longest = 0;
  for (const Segment& s : segments) longest = std::max(longest, s.k_end - s.k_begin);
  const int64_t stride = PadBlock(longest);
  float* packed = scratch.AllocArray<float>(kChoiceQueries * a.PanelFloats());
  float* head_weights = scratch.AllocArray<float>(kChoiceQueries * PadBlock(in.shape.heads));
  float* strip_scores = scratch.AllocArray<float>(kChoiceQueries * stride);
  const WorkerScratch<float> workers(scratch, std::max(IndexerScratch::Floats(in.shape), stride));
  if (scratch.counting()) return true;  // lists stay full
  ParallelRanges(std::ssize(chosen), int64_t{1} << 16,
                 [&](int64_t begin, int64_t end) { std::fill(chosen.data() + begin, chosen.data() + end, -1); });
  bool finite = true;
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    const BlockTable table = tables.empty() ? BlockTable() : tables[i];
    const int64_t first = FirstCompared(s, top_k);
    for (int64_t t = s.q_begin; t < s.q_end; t += kChoiceQueries) {
      const IndexerStrip strip{s, t, std::min(s.q_end, t + kChoiceQueries), stride, packed, head_weights, strip_scores, table};
      const int64_t keys = strip.Keys(strip.end - 1);
      if (strip.end <= first && scores.empty()) {
        ChooseAll(strip, top_k, chosen);
        continue;
      }
      workers.Run(strip.end - t, [&](int64_t j, float*) { HWY_DYNAMIC_DISPATCH(PackQuery)(a, strip, t + j); });
      workers.Run((keys + kKeyBlock - 1) / kKeyBlock, [&](int64_t block, float* own) {
        HWY_DYNAMIC_DISPATCH(ScoreKeysJob)(a, strip, block * kKeyBlock, own);
      });
      finite &= ChooseBest(strip, top_k, chosen, scores, workers);
    }
  }
  return finite;
}

}  // namespace fathom
#endif  // HWY_ONCE

#include "fathom/kernels/indexer/indexer.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/indexer/indexer.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/indexer/indexer_blocks-inl.h"
#include "fathom/kernels/indexer/indexer_plan.h"

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

// scores[j] = sum_h weights[h] max(0, dots[h][j]), head after head; NaN where a dot is: Max may drop it. Whole vectors are written.
void SumOverHeads(const float* dots, int64_t n, int64_t heads, const float* weights, float* scores) {
  const DF d;
  for (int64_t j = 0; j < n; j += LanesF()) {
    VF sum = hn::Zero(d);
    for (int64_t h = 0; h < heads; ++h) {
      const VF dot = LoadF(dots + h * kKeyBlock + j);
      sum = hn::MulAdd(hn::Set(d, weights[h]), hn::IfThenZeroElse(hn::Lt(dot, hn::Zero(d)), dot), sum);
    }
    StoreF(sum, scores + j);
  }
}

// Scores of the strip's queries with the segment's keys [first, first + kKeyBlock), counted from its first key. Keys are the lanes.
template <class Path>
void ScoreKeys(const IndexerArgs& a, const IndexerStrip& strip, int64_t first, const IndexerScratch& w) {
  const int64_t heads = a.shape.heads, stride = RowStride<Path>(a.shape.head_dim);
  const Block keys{w.keys, stride};
  LoadRows<Path>(a.k, strip.KeyRow(first), std::min(kKeyBlock, strip.Keys(strip.end - 1) - first), 0, a.shape.head_dim, kKeyBlock, keys);
  TransposeBlock(keys, kKeyBlock, stride, w.keys_t);
  for (int64_t i = 0; i < strip.end - strip.begin; ++i) {
    const int64_t n = std::min(kKeyBlock, strip.Keys(strip.begin + i) - first);
    if (n <= 0) continue;
    Path::Product({heads, n, Steps<Path>(a.shape.head_dim)}, {strip.queries + i * a.PanelFloats(), stride, 1},
                  ConstBlock(w.keys_t, kKeyBlock), {w.dots, kKeyBlock}, Into::kOverwrite);
    SumOverHeads(w.dots, n, heads, strip.weights + i * PadBlock(heads), strip.scores + i * strip.stride + first);
  }
}

void ScoreKeysJob(const IndexerArgs& a, const IndexerStrip& strip, int64_t first, float* scratch) {
  const IndexerScratch w(a.shape, scratch);
  WithPath(a.pairs, false, [&](const auto& path) { ScoreKeys<std::decay_t<decltype(path)>>(a, strip, first, w); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <atomic>
#include <bit>
#include <cmath>

#include "fathom/kernels/elementwise/topk.h"
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(PackQuery);
HWY_EXPORT(ScoreKeysJob);

bool AreFinite(const float* scores, int64_t n) {
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::bit_cast<int32_t>(scores[i]) & 0x7fffffff);
  return largest < 0x7f800000;
}

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
    if (!AreFinite(row, n)) finite = false;
    ChooseBestOf(row, n, top_k, strip.segment.k_begin, chosen.data() + t * top_k, scores.empty() ? nullptr : scores.row<float>(t),
                 reinterpret_cast<int32_t*>(own));
  });
  return finite;
}

}  // namespace

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
  float* packed = scratch.AllocArray<float>(kStripQueries * a.PanelFloats());
  float* head_weights = scratch.AllocArray<float>(kStripQueries * PadBlock(in.shape.heads));
  float* strip_scores = scratch.AllocArray<float>(kStripQueries * stride);
  const WorkerScratch<float> workers(scratch, std::max(IndexerScratch::Floats(in.shape), stride));
  if (scratch.counting()) return true;  // lists stay full
  std::fill(chosen.begin(), chosen.end(), -1);
  bool finite = true;
  for (size_t i = 0; i < segments.size(); ++i) {
    const Segment& s = segments[i];
    const BlockTable table = tables.empty() ? BlockTable() : tables[i];
    for (int64_t t = s.q_begin; t < s.q_end; t += kStripQueries) {
      const IndexerStrip strip{s, t, std::min(s.q_end, t + kStripQueries), stride, packed, head_weights, strip_scores, table};
      const int64_t keys = strip.Keys(strip.end - 1);
      if (keys <= top_k && scores.empty()) {
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

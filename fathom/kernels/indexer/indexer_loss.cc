#include "fathom/kernels/indexer/indexer_loss.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/indexer/indexer_loss.cc"
#include <hwy/foreach_target.h>

#include <hwy/contrib/math/math-inl.h>

#include "fathom/kernels/attention/mla_attention_rows-inl.h"
#include "fathom/kernels/indexer/indexer_blocks-inl.h"
#include "fathom/kernels/indexer/indexer_loss_plan.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

constexpr float kEpsilon = 1e-8f;

// ---- the main attention's probabilities, summed over heads

// One head's queries of the strip, transposed.
void PackMainQueries(const IndexerLossArgs& a, const LossStrip& strip, int64_t head, float* scratch) {
  const LossScratch w(a.target, a.indexer.shape, scratch);
  const int64_t width = a.target.shape.nope_dim + a.target.shape.rope_dim, n = strip.end - strip.begin;
  WithPath(a.pairs, false, [&](const auto& path) {
    using Path = std::decay_t<decltype(path)>;
    const Block rows{w.rows, RowStride<Path>(width)};
    LoadRows<Path>(a.target.q, strip.begin, n, head * width, width, PadBlock(n), rows);
    TransposeBlock(rows, PadBlock(n), rows.stride, strip.main_queries_t + head * PadBlock(width) * kStripQueries);
  });
}

// target [keys][Wide()] += e^(scale s - lse) of one head.
void AddProbabilities(const IndexerLossArgs& a, const LossStrip& strip, int64_t head, const BlockSight& sight, const float* scores,
                      float* target) {
  const int64_t wide = sight.Wide();
  alignas(64) float lse[kStripQueries] = {};
  for (int64_t i = 0; i < sight.rows; ++i) lse[i] = a.target.lse.row<float>(strip.begin + i)[head] * kLog2E;
  const VF scale = hn::Set(DF(), a.target.shape.scale * kLog2E);
  for (int64_t v = 0; v < wide; v += LanesF()) {
    const VF shift = LoadF(lse + v);
    for (int64_t j = 0; j < sight.n; ++j) {
      const VF p = Exp2NonPositive(hn::MulSub(scale, LoadF(scores + j * wide + v), shift));
      StoreF(hn::Add(p, LoadF(target + j * wide + v)), target + j * wide + v);
    }
  }
}

// Targets [queries][kKeyBlock] of the strip's queries and of entries [first, first + n) of a list of keys, in w.target_t. What a query does
// not see is left undefined.
template <class Path, class Keys>
void BlockTargets(const IndexerLossArgs& a, const LossStrip& strip, const BlockSight& sight, const Keys& list, int64_t first,
                  const LossScratch& w) {
  const IndexerTarget& t = a.target;
  const int64_t width = t.shape.nope_dim + t.shape.rope_dim;
  const Block keys{w.rows, RowStride<Path>(width)};
  std::fill(w.target, w.target + kKeyBlock * kStripQueries, 0.0f);
  for (int64_t head = 0; head < t.shape.heads; ++head) {
    LoadKeys<Path>({{t.q, t.kv, t.k_rope}, t.shape, a.pairs}, head, list, first, sight.n, keys);
    ScoreBlock<Path>(sight, width, keys, strip.main_queries_t + head * PadBlock(width) * kStripQueries, w.scores);
    AddProbabilities(a, strip, head, sight, w.scores, w.target);
  }
  TransposeBlock(ConstBlock(w.target, sight.Wide()), kKeyBlock, sight.Wide(), w.target_t);
}

// Dense stage: of the segment's keys [first, first + kKeyBlock), counted from its first key.
void DenseTargetsJob(const IndexerLossArgs& a, const LossStrip& strip, int64_t first, float* scratch) {
  const LossScratch w(a.target, a.indexer.shape, scratch);
  const KeyRange keys{strip.segment.k_begin, VisibleEnd(strip.segment, strip.end - 1) - strip.segment.k_begin};
  const BlockSight sight = strip.Sight(keys.Row(first), std::min(kKeyBlock, keys.n - first));
  WithPath(a.pairs, false, [&](const auto& path) { BlockTargets<std::decay_t<decltype(path)>>(a, strip, sight, keys, first, w); });
  for (int64_t i = 0; i < sight.rows; ++i) std::copy_n(w.target_t + i * kKeyBlock, sight.n, strip.targets + i * strip.stride + first);
}

// Sparse stage: of entries [first, first + kKeyBlock) of the keys that any query of the strip has chosen; each query picks its own.
void ChosenTargetsJob(const IndexerLossArgs& a, const LossStrip& strip, const SharedKeys& keys, int64_t first, float* scratch) {
  const LossScratch w(a.target, a.indexer.shape, scratch);
  const int64_t n = std::min(kKeyBlock, keys.count() - first);
  const BlockSight sight{strip.end - strip.begin, n, n};
  WithPath(a.pairs, false, [&](const auto& path) { BlockTargets<std::decay_t<decltype(path)>>(a, strip, sight, keys, first, w); });
  for (int64_t i = 0; i < sight.rows; ++i) {
    float* to = strip.targets + i * strip.stride + a.Keys(strip.segment, strip.begin + i).Position(keys.Row(first));
    for (int64_t j = 0; j < n; ++j) {
      if (keys.masks[static_cast<size_t>(first + j)] >> i & 1) *to++ = w.target_t[i * kKeyBlock + j];
    }
  }
}

// ---- the indexer's scores and their gradients

void LoadListedKeys(const IndexerLossArgs& a, const KeyList& list, int64_t first, int64_t n, Block to) {
  const int64_t dim = a.indexer.shape.head_dim;
  for (int64_t j = 0; j < n; ++j) {
    CopyRow(RowAt(a.indexer.k, list.Row(first + j)), dim, ElementRow<F32Path>(to, j));
    ZeroTail<F32Path>(to, j, dim);
  }
}

// Positions [begin, end) of the list of keys of a strip's query i.
struct ListRange {
  int64_t i;
  const KeyList& list;
  int64_t begin, end;
};
// f(begin, n) with w.dots [n][PadBlock(Hi)] and w.keys, block by block.
template <class F>
void ForBlocks(const IndexerLossArgs& a, const LossStrip& strip, const ListRange& range, const LossScratch& w, const F& f) {
  const Block keys{w.keys, PadBlock(a.indexer.shape.head_dim)};
  for (int64_t begin = range.begin; begin < range.end; begin += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, range.end - begin);
    LoadListedKeys(a, range.list, begin, n, keys);
    HeadDots<F32Path>(a.indexer.shape, keys, n, strip.queries_t + range.i * a.PanelFloats(), w.dots);
    f(begin, n);
  }
}

// scores (in) -> gradient with respect to them times factor (out); targets are overwritten. Returns kl.
double RowLoss(float* scores, float* targets, int64_t n, float factor) {
  const DF d;
  const VF epsilon = hn::Set(d, kEpsilon);
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t j = 0; j < n; ++j) top = std::max(top, scores[j]);
  const double sum = RowSum(n, [&](auto at, VF total) {
    const VF e = at.Mask(Exp2NonPositive(hn::Mul(hn::Sub(at.Load(scores), hn::Set(d, top)), hn::Set(d, kLog2E))));
    at.Store(e, scores);
    return hn::Add(total, e);
  });
  const double mass = RowSum(n, [&](auto at, VF total) { return hn::Add(total, at.Load(targets)); });
  const VF p_scale = hn::Set(d, static_cast<float>(1 / sum)), t_scale = hn::Set(d, static_cast<float>(1 / (mass + 1e-8)));
  const double kl = RowSum(n, [&](auto at, VF total) {
    const VF p = hn::Mul(at.Load(scores), p_scale), t = hn::Mul(at.Load(targets), t_scale);
    at.Store(p, scores);
    at.Store(t, targets);
    return hn::MulAdd(t, hn::Log(d, hn::Div(hn::Add(t, epsilon), hn::Add(p, epsilon))), total);
  });
  const double pull = RowSum(n, [&](auto at, VF total) {
    const VF p = at.Load(scores);
    return hn::Add(total, hn::Div(hn::Mul(at.Load(targets), p), hn::Add(p, epsilon)));
  });
  const VF mean = hn::Set(d, static_cast<float>(pull)), f = hn::Set(d, factor);
  ForVectors(n, [&](auto at) {
    const VF p = at.Load(scores);
    at.Store(hn::Mul(hn::Mul(f, p), hn::Sub(mean, hn::Div(at.Load(targets), hn::Add(p, epsilon)))), scores);
  });
  return kl;
}

// dots [n][PadBlock(Hi)] -> gradients with respect to them; dweights, unless nullptr, gets sum_j dscore_j max(0, dot_j).
void DotGradients(float* dots, const float* dscores, int64_t n, int64_t heads, const float* weights, float* dweights) {
  const DF d;
  const VF zero = hn::Zero(d);
  for (int64_t j = 0; j < n; ++j, dots += PadBlock(heads)) {
    const VF grad = hn::Set(d, dscores[j]);
    for (int64_t h = 0; h < heads; h += LanesF()) {
      const VF dot = LoadF(dots + h);
      if (dweights != nullptr) StoreF(hn::MulAdd(grad, hn::Max(zero, dot), LoadF(dweights + h)), dweights + h);
      StoreF(hn::IfThenElseZero(hn::Gt(dot, zero), hn::Mul(grad, LoadF(weights + h))), dots + h);
    }
  }
}

// dq and dweights of one query.
void QueryGradients(const IndexerLossArgs& a, const LossStrip& strip, int64_t i, const KeyList& list, const LossScratch& w) {
  const IndexerShape& s = a.indexer.shape;
  const int64_t dim = PadBlock(s.head_dim), heads = PadBlock(s.heads), t = strip.begin + i;
  std::fill(w.product, w.product + heads * dim, 0.0f);
  std::fill(w.dweights, w.dweights + heads, 0.0f);
  ForBlocks(a, strip, {i, list, 0, list.n}, w, [&](int64_t begin, int64_t n) {
    DotGradients(w.dots, strip.scores + i * strip.stride + begin, n, s.heads, strip.weights + i * heads, w.dweights);
    F32Path::Product({s.heads, s.head_dim, n}, {w.dots, 1, heads}, ConstBlock(w.keys, dim), {w.product, dim}, Into::kAdd);
  });
  for (int64_t h = 0; h < s.heads; ++h) StoreRow(w.product + h * dim, 1, s.head_dim, RowAt(a.gradients.dq, t, h * s.head_dim));
  std::copy_n(w.dweights, s.heads, a.gradients.dweights.row<float>(t));
}

void PackIndexerQuery(const IndexerLossArgs& a, const LossStrip& strip, int64_t i, float*) {
  const IndexerShape& s = a.indexer.shape;
  LoadHeadsTransposed<F32Path>(a.indexer.q, strip.begin + i, s, {strip.queries + i * a.PanelFloats(), PadBlock(s.head_dim)},
                               strip.queries_t + i * a.PanelFloats());
  LoadWeights(a.indexer.weights, strip.begin + i, strip.weights + i * PadBlock(s.heads));
}

// One query: scores, loss, dq and dweights.
void QueryJob(const IndexerLossArgs& a, const LossStrip& strip, int64_t i, float* kl, float* scratch) {
  const LossScratch w(a.target, a.indexer.shape, scratch);
  const int64_t t = strip.begin + i, heads = a.indexer.shape.heads;
  const KeyList list = a.Keys(strip.segment, t);
  float *scores = strip.scores + i * strip.stride, *targets = strip.targets + i * strip.stride;
  ForBlocks(a, strip, {i, list, 0, list.n}, w,
            [&](int64_t begin, int64_t n) { SumHeads(w.dots, n, heads, strip.weights + i * PadBlock(heads), scores + begin); });
  kl[t] = static_cast<float>(RowLoss(scores, targets, list.n, a.factor));
  if (a.WantsGradients()) QueryGradients(a, strip, i, list, w);
}

// Adds the strip's part of dk for keys [k_begin, k_end).
void KeyJob(const IndexerLossArgs& a, const LossStrip& strip, int64_t k_begin, int64_t k_end, float* scratch) {
  const LossScratch w(a.target, a.indexer.shape, scratch);
  const IndexerShape& s = a.indexer.shape;
  const int64_t dim = PadBlock(s.head_dim), heads = PadBlock(s.heads);
  for (int64_t i = 0; i < strip.end - strip.begin; ++i) {
    const KeyList list = a.Keys(strip.segment, strip.begin + i);
    ForBlocks(a, strip, {i, list, list.Position(k_begin), list.Position(k_end)}, w, [&](int64_t begin, int64_t n) {
      DotGradients(w.dots, strip.scores + i * strip.stride + begin, n, s.heads, strip.weights + i * heads, nullptr);
      F32Path::Product({n, s.head_dim, s.heads}, {w.dots, heads, 1}, ConstBlock(strip.queries + i * a.PanelFloats(), dim), {w.product, dim},
                       Into::kOverwrite);
      for (int64_t j = 0; j < n; ++j) AddRow(w.product + j * dim, s.head_dim, a.gradients.dk.row<float>(list.Row(begin + j)));
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
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
namespace {
HWY_EXPORT(PackMainQueries);
HWY_EXPORT(DenseTargetsJob);
HWY_EXPORT(ChosenTargetsJob);
HWY_EXPORT(PackIndexerQuery);
HWY_EXPORT(QueryJob);
HWY_EXPORT(KeyJob);

int64_t Blocks(int64_t keys) { return (keys + kKeyBlock - 1) / kKeyBlock; }

// shared has room for all keys of a segment.
void StripTargets(const IndexerLossArgs& a, const LossStrip& strip, SharedKeys shared, const WorkerScratch<float>& workers,
                  Arena& scratch) {
  workers.Run(a.target.shape.heads, [&](int64_t h, float* own) { HWY_DYNAMIC_DISPATCH(PackMainQueries)(a, strip, h, own); });
  if (a.Dense()) {
    return workers.Run(Blocks(VisibleEnd(strip.segment, strip.end - 1) - strip.segment.k_begin), [&](int64_t block, float* own) {
      HWY_DYNAMIC_DISPATCH(DenseTargetsJob)(a, strip, block * kKeyBlock, own);
    });
  }
  shared.begin = strip.begin;
  shared.end = strip.end;
  UniteKeys(a.choice, std::ssize(shared.rows), {&shared, 1}, scratch);
  workers.Run(Blocks(shared.count()), [&](int64_t block, float* own) {
    HWY_DYNAMIC_DISPATCH(ChosenTargetsJob)(a, strip, shared, block * kKeyBlock, own);
  });
}

void StripLoss(const IndexerLossArgs& a, const LossStrip& strip, float* kl, const WorkerScratch<float>& workers) {
  const int64_t queries = strip.end - strip.begin, k_begin = strip.segment.k_begin,
                keys = VisibleEnd(strip.segment, strip.end - 1) - k_begin;
  workers.Run(queries, [&](int64_t i, float* own) { HWY_DYNAMIC_DISPATCH(PackIndexerQuery)(a, strip, i, own); });
  workers.Run(queries, [&](int64_t i, float* own) { HWY_DYNAMIC_DISPATCH(QueryJob)(a, strip, i, kl, own); });
  if (!a.WantsGradients()) return;
  workers.Run(kKeyParts, [&](int64_t part, float* own) {
    HWY_DYNAMIC_DISPATCH(KeyJob)(a, strip, k_begin + keys * part / kKeyParts, k_begin + keys * (part + 1) / kKeyParts, own);
  });
}

void CheckLoss(const IndexerLossArgs& a, std::span<const Segment> segments, std::span<const float> kl) {
  const ConstView q = a.indexer.q, k = a.indexer.k;
  FATHOM_CHECK(a.target.q.dim(0) == q.dim(0) && a.target.kv.dim(0) == k.dim(0) && std::ssize(kl) == q.dim(0), "q {}, main q {}, {} losses",
               q.shape().ToString(), a.target.q.shape().ToString(), kl.size());
  FATHOM_CHECK(IsMatrix(a.target.lse, q.dim(0), a.target.shape.heads) && a.target.lse.dtype() == DType::kF32, "lse {}",
               a.target.lse.shape().ToString());
  CheckSegments(segments, q.dim(0), k.dim(0));
  if (!a.Dense()) FATHOM_CHECK(a.choice.k > 0 && std::ssize(a.choice.chosen) == q.dim(0) * a.choice.k, "{} chosen", a.choice.chosen.size());
  if (!a.WantsGradients()) return;
  const IndexerGradients& g = a.gradients;
  FATHOM_CHECK(g.dq.shape() == q.shape() && g.dk.shape() == k.shape() && g.dweights.shape() == a.indexer.weights.shape(),
               "dq {}, dk {}, dweights {}", g.dq.shape().ToString(), g.dk.shape().ToString(), g.dweights.shape().ToString());
  FATHOM_CHECK(g.dq.dtype() == DType::kF32 && g.dk.dtype() == DType::kF32 && g.dweights.dtype() == DType::kF32, "gradients are F32");
}

void Zero(const View& v) {
  ParallelRanges(v.dim(0), RowGrain(v.dim(1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::fill_n(v.row<float>(i), v.dim(1), 0.0f);
  });
}

// Longest list of a query.
int64_t LongestList(bool dense, int64_t most_keys, int64_t k) { return dense ? most_keys : std::min(most_keys, k); }

}  // namespace

void IndexerLoss(const IndexerTarget& target, const IndexerInputs& indexer, const IndexerKeys& keys, float factor, std::span<float> kl,
                 const IndexerGradients& gradients, Arena& scratch) {
  CheckIndexerInputs(indexer);
  const auto& [segments, chosen, k] = keys;
  const bool pairs = CheckMlaInputs(target.shape, segments, {target.q, target.kv, target.k_rope});
  const IndexerLossArgs a{target, indexer, {chosen, k}, factor, gradients, pairs};
  CheckLoss(a, segments, kl);
  const ArenaScope scope(scratch);
  int64_t longest = 0;
  for (const Segment& s : segments) longest = std::max(longest, s.k_end - s.k_begin);
  const int64_t list = PadBlock(LongestList(a.Dense(), longest, k)), wide = PadBlock(target.shape.nope_dim + target.shape.rope_dim);
  LossStrip strip{.stride = list,
                  .scores = scratch.AllocArray<float>(kStripQueries * list),
                  .targets = scratch.AllocArray<float>(kStripQueries * list),
                  .queries = scratch.AllocArray<float>(kStripQueries * a.PanelFloats()),
                  .queries_t = scratch.AllocArray<float>(kStripQueries * a.PanelFloats()),
                  .weights = scratch.AllocArray<float>(kStripQueries * PadBlock(indexer.shape.heads)),
                  .main_queries_t = scratch.AllocArray<float>(target.shape.heads * wide * kStripQueries)};
  const SharedKeys shared = AllocSharedKeys(scratch, 0, 1, a.Dense() ? 0 : longest);
  const WorkerScratch<float> workers(scratch, LossScratch::Floats(target, indexer.shape));
  std::fill(kl.begin(), kl.end(), 0.0f);
  if (a.WantsGradients()) {
    for (const View& v : {gradients.dq, gradients.dk, gradients.dweights}) Zero(v);
  }
  for (const Segment& s : segments) {
    strip.segment = s;
    for (strip.begin = s.q_begin; strip.begin < s.q_end; strip.begin += kStripQueries) {
      strip.end = std::min(s.q_end, strip.begin + kStripQueries);
      StripTargets(a, strip, shared, workers, scratch);
      StripLoss(a, strip, kl.data(), workers);
    }
  }
}

}  // namespace fathom
#endif  // HWY_ONCE

#include "fathom/layers/indexer.h"

#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "fathom/kernels/norm/layer_norm.h"
#include "fathom/kernels/quant/fp8_quantize.h"
#include "fathom/kernels/quant/hadamard.h"
#include "fathom/layers/linear.h"

namespace fathom {
namespace {

constexpr float kKeyNormEps = 1e-6f;  // official code; not rms_norm_eps

// f(begin, end) for the runs of queries whose scores are compared; runs with little between them are one.
template <class F>
void ForCompared(std::span<const Segment> segments, int64_t top_k, const F& f) {
  constexpr int64_t kLittle = 256;
  int64_t begin = 0, end = 0;
  for (const Segment& s : segments) {
    const int64_t first = FirstCompared(s, top_k);
    if (first == s.q_end) continue;
    if (end > begin && (first < end || first - end > kLittle)) f(std::exchange(begin, first), end);
    if (end == begin) begin = first;
    end = s.q_end;
  }
  if (end > begin) f(begin, end);
}

}  // namespace

Indexer::Indexer(const ModelConfig& c, const LayerOptions& options)
    : shape_{c.index_n_heads, c.index_head_dim},
      top_k_(c.index_topk),
      fp8_(options.indexer_fp8),
      pairs_(options.faults.indexer_interleaved ? RopePairs::kInterleaved : RopePairs::kHalves),
      weight_scale_(static_cast<float>(1 / std::sqrt(static_cast<double>(c.index_n_heads) * static_cast<double>(c.index_head_dim)))) {
  if (fp8_ && !std::has_single_bit(static_cast<uint64_t>(c.index_head_dim))) {
    Throw(ErrorCode::kUsage, "indexer_fp8=true: the Hadamard rotation needs an index_head_dim that is a power of two, this model has {}",
          c.index_head_dim);
  }
}

// The rotated part comes first in each head, and its pairs are halves: unlike the main attention's.
void Indexer::Rotate(View x, int64_t heads, const Inputs& in, RopeDirection direction) const {
  RopeRotate(x, {heads, shape_.head_dim, 0}, {in.rope.cos, in.rope.sin, in.positions}, pairs_, direction);
}

// In exact arithmetic the rotation, orthogonal and on both sides, cancels; it is there for the rounding. The official code multiplies codes
// and scales apart, which powers of two make the same.
void Indexer::RoundAsOfficial(Ctx& ctx, View x, int64_t heads) const {
  ArenaScope scope(ctx.scratch);
  const View rows = ctx.scratch.Alloc(DType::kF32, {x.dim(0) * heads, shape_.head_dim});
  Cast(x, rows.Reshape(x.shape()));
  HadamardRotate(rows);
  RoundToFp8(rows, Fp8Tile::k1x128, ScaleFormat::kUe8m0, rows);
  Cast(rows.Reshape(x.shape()), x);
}

Indexer::Queries Indexer::AllocQueries(Ctx& ctx, int64_t tokens) const {
  return {ctx.scratch.Alloc(ctx.compute, {tokens, shape_.heads * shape_.head_dim}), ctx.scratch.Alloc(DType::kF32, {tokens, shape_.heads})};
}

void Indexer::MakeQueries(Ctx& ctx, const IndexerParams& p, const Inputs& in, const Queries& to) const {
  LinearForward(ctx, p.wq_b, in.q_low, to.q);
  Rotate(to.q, shape_.heads, in, RopeDirection::kForward);
  ExactLinearForward(ctx, p.weights_proj, in.x, to.weights);
  Scale(weight_scale_, to.weights);
}

void Indexer::ExactKeys(Ctx& ctx, const IndexerParams& p, const Inputs& in, View k) const {
  ArenaScope scope(ctx.scratch);
  const View low = ctx.scratch.Alloc(ctx.compute, {in.x.dim(0), shape_.head_dim});
  LinearForward(ctx, p.wk, in.x, low);
  LayerNormForward(low, p.k_norm.value, p.k_norm_bias.value, kKeyNormEps, k, {});
  Rotate(k, 1, in, RopeDirection::kForward);
}

void Indexer::Keys(Ctx& ctx, const IndexerParams& p, const Inputs& in, View k) const {
  ExactKeys(ctx, p, in, k);
  if (fp8_) RoundAsOfficial(ctx, k, 1);
}

bool Indexer::Choose(Ctx& ctx, const IndexerParams& p, const Inputs& in, std::span<const Segment> segments, ConstView k,
                     std::span<int32_t> chosen, std::span<const BlockTable> tables) const {
  ArenaScope scope(ctx.scratch);
  const Queries queries = AllocQueries(ctx, in.x.dim(0));
  ForCompared(segments, top_k_, [&](int64_t begin, int64_t end) {
    const Queries late = queries.Rows(begin, end);
    MakeQueries(ctx, p, in.Rows(begin, end), late);
    if (fp8_) RoundAsOfficial(ctx, late.q, shape_.heads);
  });
  return IndexerTopK({shape_, queries.q, k, queries.weights}, segments, top_k_, chosen, {}, ctx.scratch, tables);
}

void Indexer::Scores(Ctx& ctx, const IndexerParams& p, const Inputs& in, int64_t query, std::span<float> scores) const {
  ArenaScope scope(ctx.scratch);
  const int64_t keys = std::ssize(scores);
  const View k = ctx.scratch.Alloc(ctx.compute, {in.x.dim(0), shape_.head_dim});
  Keys(ctx, p, in, k);
  const Queries queries = AllocQueries(ctx, in.x.dim(0));
  MakeQueries(ctx, p, in, queries);
  const auto& [q, weights] = queries;
  if (fp8_) RoundAsOfficial(ctx, q, shape_.heads);
  const Segment all{0, 1, 0, keys};
  const std::span<int32_t> chosen = ctx.scratch.AllocSpan<int32_t>(keys);  // every key, in order
  IndexerTopK({shape_, q.Rows(query, query + 1), k.Rows(0, keys), weights.Rows(query, query + 1)}, {&all, 1}, keys, chosen,
              ViewOf(scores.data(), {1, keys}), ctx.scratch);
}

double Indexer::Learn(Ctx& ctx, const IndexerParams& p, const Inputs& in, const IndexerTarget& target, const IndexerKeys& keys,
                      const ContextRows& rows, float factor, IndexerParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const int64_t tokens = in.x.dim(0);
  const View own = ctx.scratch.Alloc(ctx.compute, {tokens, shape_.head_dim});
  ExactKeys(ctx, p, in, own);
  const View k = rows.divided() ? ctx.scratch.Alloc(ctx.compute, {rows.all(), shape_.head_dim}) : own;
  if (rows.divided()) rows.Gather(own, k);
  const Queries queries = AllocQueries(ctx, tokens);
  MakeQueries(ctx, p, in, queries);
  const auto& [q, weights] = queries;
  const std::span<float> kl = ctx.scratch.AllocSpan<float>(tokens);
  const IndexerGradients d{ctx.scratch.Alloc(DType::kF32, q.shape()), ctx.scratch.Alloc(DType::kF32, k.shape()),
                           ctx.scratch.Alloc(DType::kF32, weights.shape())};
  IndexerLoss(target, {shape_, q, k, weights}, keys, factor, kl, d, ctx.scratch);
  Rotate(d.dq, shape_.heads, in, RopeDirection::kInverse);
  LinearBackward(ctx, p.wq_b, in.q_low, AsCompute(ctx, d.dq), {}, Write::kOverwrite, grad.wq_b);
  Scale(weight_scale_, d.dweights);
  ExactLinearBackward(ctx, p.weights_proj, in.x, AsCompute(ctx, d.dweights), {}, Write::kOverwrite, grad.weights_proj);
  const View dk = rows.divided() ? ctx.scratch.Alloc(DType::kF32, own.shape()) : d.dk;
  if (rows.divided()) rows.Reduce(d.dk, dk, ctx.scratch);
  BackwardKeys(ctx, p, in, dk, grad);
  return std::accumulate(kl.begin(), kl.end(), 0.0);
}

void Indexer::BackwardKeys(Ctx& ctx, const IndexerParams& p, const Inputs& in, View dk, IndexerParams& grad) const {
  Rotate(dk, 1, in, RopeDirection::kInverse);
  const View low = ctx.scratch.Alloc(ctx.compute, dk.shape()), normed = ctx.scratch.Alloc(ctx.compute, dk.shape());
  const View stats = ctx.scratch.Alloc(DType::kF32, {dk.dim(0), 2}), d_low = ctx.scratch.Alloc(DType::kF32, dk.shape());
  LinearForward(ctx, p.wk, in.x, low);
  LayerNormForward(low, p.k_norm.value, p.k_norm_bias.value, kKeyNormEps, normed, stats);
  LayerNormBackward(dk, low, p.k_norm.value, stats, {d_low, GradView(grad.k_norm), GradView(grad.k_norm_bias)}, ctx.scratch);
  LinearBackward(ctx, p.wk, in.x, AsCompute(ctx, d_low), {}, Write::kOverwrite, grad.wk);
}

}  // namespace fathom

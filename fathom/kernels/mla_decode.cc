#include "fathom/kernels/mla_decode.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/mla_decode.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/attention_blocks-inl.h"
#include "fathom/kernels/mla_decode_plan.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// Rows [first, first + n) of the cache, or of the query's list of chosen rows, as f32; zeros behind them.
void LoadCache(const DecodeArgs& a, int64_t query, int64_t first, int64_t n, Block to) {
  const int64_t width = a.shape.latent_dim + a.shape.rope_dim;
  for (int64_t j = 0; j < n; ++j) {
    const int64_t row = a.chosen.empty() ? first + j : a.chosen[static_cast<size_t>(query * a.k + first + j)];
    ToF32(RowAt(a.cache, row), width, to.data + j * to.stride);
  }
  std::fill(to.data + n * to.stride, to.data + kKeyBlock * to.stride, 0.0f);
}

void LoadQuery(const DecodeArgs& a, int64_t query, Block to) {
  const MlaDecodeShape& s = a.shape;
  for (int64_t h = 0; h < s.heads; ++h) {
    float* row = to.data + h * to.stride;
    ToF32(RowAt(a.q_latent, query, h * s.latent_dim), s.latent_dim, row);
    ToF32(RowAt(a.q_rope, query, h * s.rope_dim), s.rope_dim, row + s.latent_dim);
  }
}

// All heads of one query over one part of its rows: unnormalised sums of latents and the state of each head's softmax.
void DecodeJob(const DecodeArgs& a, const DecodePart& part, float* scratch, const PartialSums& out) {
  const MlaDecodeShape& s = a.shape;
  const int64_t width = s.latent_dim + s.rope_dim, wide = PadBlock(width), latent_wide = PadBlock(s.latent_dim);
  const DecodeScratch w(s, scratch);
  const Block q{w.q, wide}, rows{w.rows, wide}, scores{w.scores, kKeyBlock}, sums{out.sums, latent_wide};
  LoadQuery(a, part.query, q);
  std::fill(sums.data, sums.data + s.heads * latent_wide, 0.0f);
  std::fill(out.state, out.state + s.heads, RunningSoftmax());
  for (int64_t first = part.begin; first < part.end; first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, part.end - first);
    LoadCache(a, part.query, first, n, rows);
    TransposeKeys(rows, width, w.rows_t);
    BlockProduct(s.heads, n, width, {q.data, wide, 1}, ConstBlock(w.rows_t, kKeyBlock), scores, Into::kOverwrite);
    for (int64_t h = 0; h < s.heads; ++h) w.factor[h] = SoftmaxStep(scores.data + h * kKeyBlock, n, PadBlock(n), s.scale, out.state[h]);
    BlockProduct(s.heads, s.latent_dim, n, {scores.data, kKeyBlock, 1}, rows, sums, Into::kScaleAdd, w.factor);
  }
}

// One head of one query: parts are added in order, brought to their common largest score.
void CombineParts(const MlaDecodeShape& s, int64_t head, std::span<const PartialSums> parts, float* o) {
  float largest = -std::numeric_limits<float>::infinity(), sum = 0;
  for (const PartialSums& p : parts) largest = std::max(largest, p.state[head].largest);
  std::fill(o, o + s.latent_dim, 0.0f);
  for (const PartialSums& p : parts) {
    const float factor = hn::GetLane(ExpF(hn::Set(DF(), p.state[head].largest - largest)));
    const float* from = p.sums + head * PadBlock(s.latent_dim);
    const VF f = hn::Set(DF(), factor);
    ForVectors(s.latent_dim, [&](auto at) { Store(at, hn::MulAdd(f, at.Load(from), at.Load(o)), o); });
    sum += factor * p.state[head].sum;
  }
  if (sum > 0) FromF32(o, 1 / sum, s.latent_dim, {reinterpret_cast<std::byte*>(o), DType::kF32});
}

void WeightRowToF32(const WeightView& w, int64_t row, float* to) {
  const int64_t n = w.value.dim(1);
  if (w.value.dtype() != DType::kF8E4M3) return ToF32(RowAt(w.value, row), n, to);
  const F8E4M3* codes = w.value.row<F8E4M3>(row);
  const bool powers = w.scale.dtype() == DType::kF8E8M0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t block = i / kScaleBlock;
    to[i] = ToFloat(codes[i]) * (powers ? ToFloat(w.scale.row<F8E8M0>(row / kScaleBlock)[block]) : w.scale.row<float>(row / kScaleBlock)[block]);
  }
}

// y_h of heads [begin, end), row by row of the weight: each is converted once for all rows of x.
void HeadProductJob(const HeadProductArgs& a, int64_t begin, int64_t end, float* row) {
  const int64_t columns = a.w.value.dim(1), per_head = a.w.value.dim(0) / a.heads, queries = a.x.dim(0);
  const bool to_latent = a.kind == HeadProduct::kToLatent;
  for (int64_t h = begin; h < end; ++h) {
    if (to_latent) {
      for (int64_t m = 0; m < queries; ++m) std::fill_n(a.y.row<float>(m) + h * columns, columns, 0.0f);
    }
    for (int64_t i = 0; i < a.rows; ++i) {
      WeightRowToF32(a.w, h * per_head + a.first + i, row);
      for (int64_t m = 0; m < queries; ++m) {
        const float* x = a.x.row<float>(m) + h * (to_latent ? a.rows : columns);
        float* y = a.y.row<float>(m) + h * (to_latent ? columns : a.rows);
        if (to_latent) {
          const VF factor = hn::Set(DF(), x[i]);
          ForVectors(columns, [&](auto at) { Store(at, hn::MulAdd(factor, at.Load(row), at.Load(y)), y); });
        } else {
          y[i] = static_cast<float>(RowSum(columns, [&](auto at, VF sum) { return hn::MulAdd(at.Load(x), at.Load(row), sum); }));
        }
      }
    }
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <array>

#include "fathom/base/threads.h"
#include "fathom/kernels/rows.h"

namespace fathom {
namespace {
HWY_EXPORT(DecodeJob);
HWY_EXPORT(CombineParts);
HWY_EXPORT(HeadProductJob);

int64_t RowsOf(const DecodeArgs& a, std::span<const int64_t> visible, int64_t query) {
  if (a.chosen.empty()) return visible[static_cast<size_t>(query)];
  int64_t n = 0;
  while (n < a.k && a.chosen[static_cast<size_t>(query * a.k + n)] >= 0) ++n;
  return n;
}

void DecodeQueries(const DecodeArgs& a, std::span<const int64_t> visible, View o_latent, Arena& scratch) {
  const MlaDecodeShape& s = a.shape;
  const int64_t queries = a.q_latent.dim(0), each = DecodeScratch::Floats(s), sums = s.heads * PadBlock(s.latent_dim);
  int64_t* first = scratch.AllocArray<int64_t>(queries + 1);
  first[0] = 0;
  for (int64_t m = 0; m < queries; ++m) first[m + 1] = first[m] + DecodeParts(RowsOf(a, visible, m));
  float* workers = scratch.AllocArray<float>(NumWorkers() * each);
  auto* parts = scratch.AllocArray<PartialSums>(first[queries]);
  auto* states = scratch.AllocArray<RunningSoftmax>(first[queries] * s.heads);
  float* partial = scratch.AllocArray<float>(first[queries] * sums);
  ParallelWorkerJobs(first[queries], [&](int64_t job, int worker) {
    const int64_t m = std::upper_bound(first, first + queries + 1, job) - first - 1;
    parts[job] = {partial + job * sums, states + job * s.heads};
    const auto [begin, end] = DecodeRange(RowsOf(a, visible, m), job - first[m]);
    HWY_DYNAMIC_DISPATCH(DecodeJob)(a, {m, begin, end}, workers + worker * each, parts[job]);
  });
  ParallelRanges(queries * s.heads, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t m = i / s.heads, head = i % s.heads;
      const std::span<const PartialSums> own(parts + first[m], static_cast<size_t>(first[m + 1] - first[m]));
      HWY_DYNAMIC_DISPATCH(CombineParts)(s, head, own, o_latent.row<float>(m) + head * s.latent_dim);
    }
  });
}

}  // namespace

void MlaDecode(const MlaDecodeShape& shape, ConstView q_latent, ConstView q_rope, ConstView cache, std::span<const int64_t> visible,
               std::span<const int32_t> chosen, int64_t k, View o_latent, Arena& scratch) {
  const int64_t queries = q_latent.dim(0);
  FATHOM_CHECK(IsMatrix(q_latent, queries, shape.heads * shape.latent_dim) && q_latent.dtype() == DType::kF32 &&
                   IsMatrix(q_rope, queries, shape.heads * shape.rope_dim) && q_rope.dtype() == DType::kF32 && o_latent.shape() == q_latent.shape() &&
                   o_latent.dtype() == DType::kF32,
               "q_latent {}, q_rope {}, o_latent {}", q_latent.shape().ToString(), q_rope.shape().ToString(), o_latent.shape().ToString());
  FATHOM_CHECK(IsMatrix(cache, cache.dim(0), shape.latent_dim + shape.rope_dim), "cache {}", cache.shape().ToString());
  FATHOM_CHECK(chosen.empty() ? std::ssize(visible) == queries : std::ssize(chosen) == queries * k, "{} visible, {} chosen", visible.size(), chosen.size());
  for (const int64_t n : visible) FATHOM_CHECK(0 <= n && n <= cache.dim(0), "{} visible of {}", n, cache.dim(0));
  for (const int32_t row : chosen) FATHOM_CHECK(row < cache.dim(0), "row {} of {}", row, cache.dim(0));
  const ArenaScope scope(scratch);
  DecodeQueries({shape, q_latent, q_rope, cache, chosen, k}, visible, o_latent, scratch);
}

void PerHeadMatMul(HeadProduct kind, int64_t heads, const WeightView& w, int64_t first, int64_t rows, ConstView x, View y, Arena& scratch) {
  const int64_t columns = w.value.dim(1), per_head = w.value.dim(0) / heads;
  const bool to_latent = kind == HeadProduct::kToLatent;
  FATHOM_CHECK(w.value.rank() == 2 && w.value.dim(0) == heads * per_head && 0 <= first && first + rows <= per_head, "w {}, {} heads, rows {}..{}",
               w.value.shape().ToString(), heads, first, first + rows);
  FATHOM_CHECK(IsMatrix(x, x.dim(0), heads * (to_latent ? rows : columns)) && IsMatrix(y, x.dim(0), heads * (to_latent ? columns : rows)) &&
                   x.dtype() == DType::kF32 && y.dtype() == DType::kF32,
               "x {}, y {}", x.shape().ToString(), y.shape().ToString());
  const ArenaScope scope(scratch);
  const int64_t wide = PadBlock(columns);
  float* workers = scratch.AllocArray<float>(NumWorkers() * wide);
  ParallelWorkerJobs(heads, [&](int64_t h, int worker) {
    HWY_DYNAMIC_DISPATCH(HeadProductJob)({kind, heads, w, first, rows, x, y}, h, h + 1, workers + worker * wide);
  });
}

int64_t MlaDecodeScratchBytes(const MlaDecodeShape& shape, int64_t queries, int64_t most_rows) {
  const int64_t parts = queries * DecodeParts(most_rows), floats = NumThreads() * DecodeScratch::Floats(shape) + parts * shape.heads * PadBlock(shape.latent_dim);
  return floats * 4 + (queries + 1) * 8 + parts * (static_cast<int64_t>(sizeof(PartialSums)) + shape.heads * 8) + 64 * 8;
}

}  // namespace fathom
#endif  // HWY_ONCE

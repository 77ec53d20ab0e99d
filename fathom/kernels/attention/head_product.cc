#include "fathom/kernels/attention/head_product.h"

#include "fathom/kernels/attention/head_product_plan.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/attention/head_product.cc"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <type_traits>

#include "fathom/kernels/attention/head_stream-inl.h"
#include "fathom/kernels/quant/fp8-inl.h"
#include "fathom/kernels/simd/prefetch-inl.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// Vectors of sums that have room in registers, and rows of x that share them.
constexpr int kSums = HWY_MAX_BYTES == 64 ? 16 : HWY_MAX_BYTES >= 16 ? 8 : 4;
// Rows that come from memory while this one is widened.
constexpr int64_t kRowsAhead = 4;
constexpr int kMostQueries = std::min(8, kSums);
// And rows or vectors of weights beside kM rows of x.
template <int kM>
constexpr int kBeside = std::min(4, kSums / kM);

// Rows [i, i + rows) of a head's weights as F32.
struct WeightTile {
  const float* data;
  int64_t i, rows, columns;
  const float* Row(int64_t r) const { return data + r * columns; }
};

// Columns [begin, end) of a row of weights.
struct RowPart {
  int64_t row, begin, end;
};

template <class T>
void WidenAs(const WeightView& w, const RowPart& part, float* to) {
  const T* from = reinterpret_cast<const T*>(w.value.raw()) + part.row * w.value.stride() + part.begin;
  ForVectors(part.end - part.begin, [&](auto at) { at.Store(at.Load(from), to); });
}

void WidenCodes(const WeightView& w, const RowPart& part, float* to) {
  const auto* codes = reinterpret_cast<const uint8_t*>(w.value.row<F8E4M3>(part.row));
  for (int64_t begin = part.begin, end; begin < part.end; begin = end) {
    end = std::min(part.end, (begin / kScaleBlock + 1) * kScaleBlock);
    const VF scale = hn::Set(DF(), BlockScale(w.scale, part.row / kScaleBlock, begin / kScaleBlock));
    ForCodes(codes, begin, end, [&](auto at, VF value) {
      at.i -= part.begin;
      at.Store(hn::Mul(value, scale), to);
    });
  }
}

void WidenRow(const WeightView& w, const RowPart& part, float* to) {
  PrefetchRow(w.value, part.row + kRowsAhead, part.begin, part.end - part.begin);
  const DType type = w.value.dtype();
  if (type == DType::kF32) return WidenAs<float>(w, part, to);
  if (type == DType::kBF16) return WidenAs<BF16>(w, part, to);
  if (type == DType::kF16) return WidenAs<F16>(w, part, to);
  WidenCodes(w, part, to);
}

// Rows [m, m + kM) of one head's x, and of y from the part's first column on.
template <int kM>
struct Queries {
  const float* x[kM];
  float* y[kM];
  Queries(const HeadProductArgs& a, const HeadPart& part, int64_t m) {
    const int64_t in = a.x.dim(1) / a.heads, out = a.y.dim(1) / a.heads;
    for (int i = 0; i < kM; ++i) {
      x[i] = a.x.row<float>(m + i) + part.head * in;
      y[i] = a.y.row<float>(m + i) + part.head * out + part.begin;
    }
  }
};

// kN vectors of y from `at` on: += a tile's rows times x's elements, in the order of the rows.
template <int kM, int kN, class At>
HWY_INLINE void AddRows(const WeightTile& w, const Queries<kM>& q, At at) {
  const auto shifted = [&](int v) {
    At moved = at;
    moved.i += v * LanesF();
    return moved;
  };
  VF sum[kM][kN];
#pragma GCC unroll 16
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kN; ++v) sum[m][v] = shifted(v).Load(q.y[m]);
  }
  for (int64_t r = 0; r < w.rows; ++r) {
    VF row[kN];
#pragma GCC unroll 16
    for (int v = 0; v < kN; ++v) row[v] = shifted(v).Load(w.Row(r));
#pragma GCC unroll 16
    for (int m = 0; m < kM; ++m) {
      const VF factor = hn::Set(DF(), q.x[m][w.i + r]);
#pragma GCC unroll 16
      for (int v = 0; v < kN; ++v) sum[m][v] = hn::MulAdd(factor, row[v], sum[m][v]);
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 16
    for (int v = 0; v < kN; ++v) shifted(v).Store(sum[m][v], q.y[m]);
  }
}

template <int kM>
void ToLatent(const WeightTile& w, const Queries<kM>& q) {
  constexpr int kN = kBeside<kM>;
  int64_t c = 0;
  for (; c + kN * LanesF() <= w.columns; c += kN * LanesF()) AddRows<kM, kN>(w, q, WholeVector{c});
  ForVectors(c, w.columns, [&](auto at) { AddRows<kM, 1>(w, q, at); });
}

// Products of kN rows of weights from r on with every row of x. Sums of a lane have as many terms as a row has vectors.
template <int kM, int kN>
HWY_INLINE void Dots(const WeightTile& w, const Queries<kM>& q, int64_t r) {
  VF sum[kM][kN];
#pragma GCC unroll 16
  for (int m = 0; m < kM; ++m) {
#pragma GCC unroll 16
    for (int n = 0; n < kN; ++n) sum[m][n] = hn::Zero(DF());
  }
  ForVectors(w.columns, [&](auto at) {
    VF row[kN];
#pragma GCC unroll 16
    for (int n = 0; n < kN; ++n) row[n] = at.Load(w.Row(r + n));
#pragma GCC unroll 16
    for (int m = 0; m < kM; ++m) {
      const VF x = at.Load(q.x[m]);
#pragma GCC unroll 16
      for (int n = 0; n < kN; ++n) sum[m][n] = hn::MulAdd(x, row[n], sum[m][n]);
    }
  });
  for (int m = 0; m < kM; ++m) {
    for (int n = 0; n < kN; ++n) q.y[m][w.i + r + n] = hn::GetLane(hn::SumOfLanes(DF(), sum[m][n]));
  }
}

template <int kM>
void FromLatent(const WeightTile& w, const Queries<kM>& q) {
  constexpr int kN = kBeside<kM>;
  int64_t r = 0;
  for (; r + kN <= w.rows; r += kN) Dots<kM, kN>(w, q, r);
  for (; r < w.rows; ++r) Dots<kM, 1>(w, q, r);
}

// f(m, kM) for groups of at most kMostQueries rows of x.
template <int kM = kMostQueries, class F>
void ForQueries(int64_t begin, int64_t end, const F& f) {
  for (; begin + kM <= end; begin += kM) f(begin, std::integral_constant<int, kM>());
  if constexpr (kM > 1) ForQueries<kM / 2>(begin, end, f);
}

// A part of one head: columns of its weights on the way to the latents, rows on the way back. `tile` holds kTileRows rows of the weight.
void HeadProductJob(const HeadProductArgs& a, const HeadPart& part, float* tile) {
  const int64_t per_head = a.w.value.dim(0) / a.heads, queries = a.x.dim(0);
  const bool to_latent = a.kind == HeadProduct::kToLatent;
  const auto [h, begin, end] = part;
  for (int64_t m = 0; to_latent && m < queries; ++m) std::fill_n(a.y.row<float>(m) + h * a.w.value.dim(1) + begin, end - begin, 0.0f);
  const int64_t first_column = to_latent ? begin : 0, end_column = to_latent ? end : a.w.value.dim(1), columns = end_column - first_column;
  const int64_t first = to_latent ? 0 : begin, last = to_latent ? a.rows : end, tile_rows = queries == 1 ? kTileRowsAlone : kTileRows;
  if (queries == 1 && columns == a.w.value.dim(1)) {
    const Queries<1> q(a, part, 0);
    if (StreamHead({a.w, h * per_head + a.first + first, last - first, q.x[0], q.y[0]}, to_latent)) return;
  }
  for (int64_t i = first; i < last; i += tile_rows) {
    const WeightTile w{tile, i - (to_latent ? 0 : begin), std::min(tile_rows, last - i), columns};
    for (int64_t r = 0; r < w.rows; ++r) WidenRow(a.w, {h * per_head + a.first + i + r, first_column, end_column}, tile + r * columns);
    ForQueries(0, queries, [&](int64_t m, auto count) {
      const Queries<count()> q(a, part, m);
      to_latent ? ToLatent(w, q) : FromLatent(w, q);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "fathom/base/trace.h"
#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {
HWY_EXPORT(HeadProductJob);

void PerHeadMatMul(HeadProduct kind, const HeadWeights& weight, ConstView x, View y, Arena& scratch) {
  const auto& [heads, w, first, rows] = weight;
  const int64_t columns = w.value.dim(1), per_head = w.value.dim(0) / heads;
  const bool to_latent = kind == HeadProduct::kToLatent;
  FATHOM_CHECK(w.value.rank() == 2 && w.value.dim(0) == heads * per_head && 0 <= first && first + rows <= per_head,
               "w {}, {} heads, rows {}..{}", w.value.shape().ToString(), heads, first, first + rows);
  FATHOM_CHECK(IsMatrix(x, x.dim(0), heads * (to_latent ? rows : columns)) && IsMatrix(y, x.dim(0), heads * (to_latent ? columns : rows)) &&
                   x.dtype() == DType::kF32 && y.dtype() == DType::kF32,
               "x {}, y {}", x.shape().ToString(), y.shape().ToString());
  TraceSlice slice("products of heads");
  if (slice.recorded()) {
    const int64_t weights = heads * rows * columns;
    slice.AddWork(2 * static_cast<double>(weights * x.dim(0)), static_cast<double>(weights * DTypeSize(w.value.dtype())));
  }
  const ArenaScope scope(scratch);
  const WorkerScratch<float> workers(scratch, kTileRows * columns);
  const int64_t out = to_latent ? columns : rows, unit = to_latent ? kPartColumns : kPartRows, units = (out + unit - 1) / unit;
  const int64_t parts = EvenParts(heads, units, NumWorkers());
  workers.Run(heads * parts, [&](int64_t job, float* tile) {
    const auto [begin, end] = OwnRange(units, job % parts, parts);
    HWY_DYNAMIC_DISPATCH(HeadProductJob)
    ({weight, kind, x, y}, {job / parts, begin * unit, std::min(out, end * unit)}, tile);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

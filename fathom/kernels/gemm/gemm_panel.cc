#include "fathom/kernels/gemm/gemm_panel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/gemm/gemm_panel.cc"
#include <hwy/foreach_target.h>

#include <algorithm>
#include <limits>

#include "fathom/kernels/quant/fp8-inl.h"
#include "fathom/kernels/simd/prefetch-inl.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

struct Keep {
  HWY_INLINE VF operator()(VF v) const { return v; }
};
struct RoundToBF16Values {
  HWY_INLINE VF operator()(VF v) const { return hn::BitCast(DF(), hn::And(RoundedBits(v), hn::Set(DU(), 0xffff0000u))); }
};

template <class Round>
void ConvertRow(const InRow& from, int64_t n, const Round& round, const OutRow& to) {
  ForVectors(n, [&](auto at) { Store(at, round(Load(at, from)), to); });
}

// Columns [column, column + n) of a row of codes, cut where the scale changes.
template <class Round>
void ConvertCodes(const WeightView& w, int64_t row, int64_t column, int64_t n, const Round& round, OutRow to) {
  const uint8_t* codes = reinterpret_cast<const uint8_t*>(w.value.raw()) + row * w.value.stride();
  for (const int64_t end = column + n; column < end;) {
    const int64_t block = column / kScaleBlock, length = std::min(end, (block + 1) * kScaleBlock) - column;
    const VF scale = hn::Set(DF(), BlockScale(w.scale, row / kScaleBlock, block));
    ForCodes(codes + column, 0, length, [&](auto at, VF value) { Store(at, round(hn::Mul(scale, value)), to); });
    column += length;
    to.data += length * DTypeSize(to.dtype);
  }
}

template <class Round>
void ConvertRows(const WeightView& from, const PanelRange& part, const Round& round, OutRow to) {
  const ConstView columns = from.value.Cols(part.column, part.column + part.columns);
  const int64_t bytes = part.columns * DTypeSize(to.dtype);
  for (int64_t r = part.row; r < part.row + part.rows; ++r, to.data += bytes) {
    if (from.value.dtype() == DType::kF8E4M3) {
      ConvertCodes(from, r, part.column, part.columns, round, to);
    } else {
      ConvertRow(RowAt(columns, r), part.columns, round, to);
    }
  }
}

void WidenPanelRows(const WeightView& from, const PanelRange& part, bool round, float* to) {
  const OutRow out{reinterpret_cast<std::byte*>(to), DType::kF32};
  if (round && from.value.dtype() != DType::kBF16) {
    ConvertRows(from, part, RoundToBF16Values(), out);
  } else {
    ConvertRows(from, part, Keep(), out);
  }
}

#if HWY_TARGET == HWY_SCALAR
constexpr int64_t kSquare = 1;
HWY_INLINE void TransposeSquare(const float* from, int64_t, float* to, int64_t) { *to = *from; }
#else
constexpr int64_t kSquare = 4;
HWY_INLINE void TransposeSquare(const float* from, int64_t from_stride, float* to, int64_t to_stride) {
  const hn::CappedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pairs;
  const auto r0 = hn::LoadU(d, from), r1 = hn::LoadU(d, from + from_stride);
  const auto r2 = hn::LoadU(d, from + 2 * from_stride), r3 = hn::LoadU(d, from + 3 * from_stride);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1)), high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3)), high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to + 2 * to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to + 3 * to_stride);
}
#endif

// to [columns, rows] = from [rows, columns] transposed: squares in registers, the rest one by one.
void TransposeBlock(const float* from, int64_t from_stride, int64_t rows, int64_t columns, float* to, int64_t to_stride) {
  const int64_t whole_rows = rows / kSquare * kSquare, whole_columns = columns / kSquare * kSquare;
  for (int64_t k = 0; k < whole_columns; k += kSquare) {
    for (int64_t r = 0; r < whole_rows; r += kSquare)
      TransposeSquare(from + r * from_stride + k, from_stride, to + k * to_stride + r, to_stride);
  }
  for (int64_t k = 0; k < columns; ++k) {
    for (int64_t r = k < whole_columns ? whole_rows : 0; r < rows; ++r) to[k * to_stride + r] = from[r * from_stride + k];
  }
}

// Rows in blocks of 16, so that whole lines of the result are written while they are in cache, and pieces of 64 columns, so that
// what is converted on the way is.
void TransposePanelRows(const WeightView& from, const PanelRange& part, bool round, float* to) {
  constexpr int64_t kRows = 16, kColumns = 64;
  alignas(64) float block[kRows * kColumns];
  const bool direct = from.value.dtype() == DType::kF32 && !round;
  for (int64_t r = 0; r < part.rows; r += kRows) {
    const int64_t rows = std::min(kRows, part.rows - r);
    for (int64_t k = 0; k < part.columns; k += kColumns) {
      const int64_t columns = std::min(kColumns, part.columns - k);
      const PanelRange piece{part.row + r, rows, part.column + k, columns};
      const int64_t next = std::min(kColumns, part.columns - k - columns);  // no hardware follows so many rows at once
      for (int64_t i = 0; i < rows; ++i) PrefetchRow(from.value, piece.row + i, piece.column + columns, next);
      if (!direct) WidenPanelRows(from, piece, round, block);
      const float* source = direct ? from.value.row<float>(piece.row) + piece.column : block;
      const int64_t stride = direct ? from.value.stride() : columns;
      TransposeBlock(source, stride, rows, columns, to + k * part.rows + r, part.rows);
    }
  }
}

void NarrowPanelRows(const WeightView& from, const PanelRange& part, BF16* to) {
  ConvertRows(from, part, Keep(), {reinterpret_cast<std::byte*>(to), DType::kBF16});
}

void StorePanelRows(const float* from, const PanelRange& part, bool add, const View& c) {
  for (int64_t r = 0; r < part.rows; ++r, from += part.columns) {
    const OutRow out = RowAt(c.Cols(part.column, part.column + part.columns), part.row + r);
    ForVectors(part.columns, [&](auto at) {
      const VF v = Load(at, from);
      Store(at, add ? hn::Add(v, Load(at, out)) : v, out);
    });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fathom {
HWY_EXPORT(WidenPanelRows);
HWY_EXPORT(TransposePanelRows);
HWY_EXPORT(NarrowPanelRows);
HWY_EXPORT(StorePanelRows);

void WidenPanel(const WeightView& from, PanelRange part, bool round_to_bf16, float* to) {
  HWY_DYNAMIC_DISPATCH(WidenPanelRows)(from, part, round_to_bf16, to);
}

void TransposePanel(const WeightView& from, PanelRange part, bool round_to_bf16, float* to) {
  HWY_DYNAMIC_DISPATCH(TransposePanelRows)(from, part, round_to_bf16, to);
}

void NarrowPanel(const WeightView& from, PanelRange part, BF16* to) { HWY_DYNAMIC_DISPATCH(NarrowPanelRows)(from, part, to); }

void StorePanel(const float* from, PanelRange part, bool add, View c) { HWY_DYNAMIC_DISPATCH(StorePanelRows)(from, part, add, c); }

}  // namespace fathom
#endif  // HWY_ONCE

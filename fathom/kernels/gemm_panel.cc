#include "fathom/kernels/gemm_panel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/gemm_panel.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/fp8-inl.h"
#include "fathom/kernels/simd-inl.h"

#include <algorithm>
#include <limits>

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

HWY_INLINE VF RoundF(VF v, bool round) {
  return round ? hn::BitCast(DF(), hn::And(RoundedBits(v), hn::Set(DU(), 0xffff0000u))) : v;
}

void WidenRow(const InRow& from, int64_t n, bool round, float* to) {
  ForVectors(n, [&](auto at) { Store(at, RoundF(Load(at, from), round), to); });
}

// Columns [column, column + n) of a row of codes, cut where the scale changes.
void WidenCodes(const WeightView& w, int64_t row, int64_t column, int64_t n, bool round, float* to) {
  const uint8_t* codes = reinterpret_cast<const uint8_t*>(w.value.raw()) + row * w.value.stride();
  for (const int64_t end = column + n; column < end;) {
    const int64_t block = column / kScaleBlock, length = std::min(end, (block + 1) * kScaleBlock) - column;
    const VF scale = hn::Set(DF(), BlockScale(w.scale, row / kScaleBlock, block));
    ForVectors(length, [&](auto at) { Store(at, RoundF(hn::Mul(scale, LoadCodes(at, codes + column)), round), to); });
    column += length;
    to += length;
  }
}

void WidenPanelRows(const WeightView& from, const PanelRange& part, bool round, float* to) {
  for (int64_t r = part.row; r < part.row + part.rows; ++r, to += part.columns) {
    if (from.value.dtype() == DType::kF8E4M3) {
      WidenCodes(from, r, part.column, part.columns, round, to);
    } else {
      WidenRow(RowAt(from.value.Cols(part.column, part.column + part.columns), r), part.columns, round, to);
    }
  }
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
HWY_EXPORT(StorePanelRows);

void WidenPanel(const WeightView& from, PanelRange part, bool round_to_bf16, float* to) {
  HWY_DYNAMIC_DISPATCH(WidenPanelRows)(from, part, round_to_bf16, to);
}

void StorePanel(const float* from, PanelRange part, bool add, View c) { HWY_DYNAMIC_DISPATCH(StorePanelRows)(from, part, add, c); }

}  // namespace fathom
#endif  // HWY_ONCE

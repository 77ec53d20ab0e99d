#include "fathom/kernels/quant/fp8_quantize.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/quant/fp8_quantize.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "fathom/kernels/quant/fp8-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// amax / 448, at least the smallest normal number (also for a tile of zeros, which stay zeros).
HWY_INLINE VF TileScale(VF amax, bool power_of_two) {
  const DF d;
  const DU du;
  VF scale = hn::Max(hn::Div(amax, hn::Set(d, 448.0f)), hn::Set(d, 0x1p-126f));
  if (power_of_two) {
    const auto up = hn::Add(hn::BitCast(du, scale), hn::Set(du, 0x7fffffu));
    scale = hn::BitCast(d, hn::And(up, hn::Set(du, 0x7f800000u)));
  }
  return scale;
}

// NaN counts as 0 here and passes through the rounding.
HWY_INLINE VF LargerMagnitude(VF most, VF x) {
  const VF magnitude = hn::Abs(x);
  return hn::IfThenElse(hn::Gt(magnitude, most), magnitude, most);
}

HWY_INLINE VF Rounded(VF x, VF scale) { return hn::Mul(DecodeE4M3(EncodeE4M3(hn::Div(x, scale))), scale); }

// All of x's rows, columns begin..end, are one tile.
void RoundTile(const ConstView& x, int64_t begin, int64_t end, bool power_of_two, const View& y) {
  VF most = hn::Zero(DF());
  for (int64_t r = 0; r < x.dim(0); ++r) {
    const InRow in = RowAt(x, r);
    ForVectors(begin, end, [&](auto at) { most = LargerMagnitude(most, Load(at, in)); });
  }
  const VF scale = TileScale(hn::MaxOfLanes(DF(), most), power_of_two);
  for (int64_t r = 0; r < x.dim(0); ++r) {
    const InRow in = RowAt(x, r);
    const OutRow out = RowAt(y, r);
    ForVectors(begin, end, [&](auto at) { Store(at, Rounded(Load(at, in), scale), out); });
  }
}

// Each column of x's rows is a tile.
void RoundColumns(const ConstView& x, bool power_of_two, const View& y) {
  ForVectors(x.dim(1), [&](auto at) {
    VF most = hn::Zero(DF());
    for (int64_t r = 0; r < x.dim(0); ++r) most = LargerMagnitude(most, Load(at, RowAt(x, r)));
    const VF scale = TileScale(most, power_of_two);
    for (int64_t r = 0; r < x.dim(0); ++r) Store(at, Rounded(Load(at, RowAt(x, r)), scale), RowAt(y, r));
  });
}

// x's rows are one row of tiles.
void RoundTileRow(const ConstView& x, Fp8Tile tile, bool power_of_two, const View& y) {
  if (tile == Fp8Tile::k128x1) {
    RoundColumns(x, power_of_two, y);
    return;
  }
  for (int64_t c = 0; c < x.dim(1); c += kScaleBlock) RoundTile(x, c, std::min(x.dim(1), c + kScaleBlock), power_of_two, y);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(RoundTileRow);

void RoundToFp8(ConstView x, Fp8Tile tile, ScaleFormat format, View y) {
  const int64_t rows = x.dim(0), k = x.dim(1);
  FATHOM_CHECK(IsMatrix(x, rows, k) && IsMatrix(y, rows, k), "{} to {}", x.shape().ToString(), y.shape().ToString());
  const int64_t height = tile == Fp8Tile::k1x128 ? 1 : kScaleBlock;
  const bool power_of_two = format == ScaleFormat::kUe8m0;
  ParallelRanges((rows + height - 1) / height, RowGrain(k * height), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * height, last = std::min(rows, first + height);
      HWY_DYNAMIC_DISPATCH(RoundTileRow)(x.Rows(first, last), tile, power_of_two, y.Rows(first, last));
    }
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

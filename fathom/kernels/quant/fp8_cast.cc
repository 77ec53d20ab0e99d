#include "fathom/kernels/quant/fp8_cast.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/quant/fp8_cast.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "fathom/kernels/quant/fp8-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

const uint8_t* CodesAt(const ConstView& codes, int64_t row) { return reinterpret_cast<const uint8_t*>(codes.raw()) + row * codes.stride(); }

template <class Out>
void DequantizeRow(const uint8_t* codes, const ConstView& scale, int64_t block_row, int64_t k, Out* out) {
  for (int64_t b = 0; b * kScaleBlock < k; ++b) {
    const VF s = hn::Set(DF(), BlockScale(scale, block_row, b));
    ForCodes(codes, b * kScaleBlock, std::min(k, (b + 1) * kScaleBlock), [&](auto at, VF value) { at.Store(hn::Mul(value, s), out); });
  }
}

void DequantizeRows(const ConstView& codes, const ConstView& scale, int64_t first_row, const View& y) {
  for (int64_t r = 0; r < codes.dim(0); ++r) {
    const int64_t block_row = (first_row + r) / kScaleBlock;
    if (y.dtype() == DType::kF32)
      DequantizeRow(CodesAt(codes, r), scale, block_row, codes.dim(1), y.row<float>(r));
    else
      DequantizeRow(CodesAt(codes, r), scale, block_row, codes.dim(1), y.row<BF16>(r));
  }
}

HWY_INLINE void StoreCodes(const WholeVector& at, hn::Vec<DU> codes, uint8_t* out) {
  const hn::Rebind<uint8_t, DF> d8;
  hn::StoreU(hn::DemoteTo(d8, hn::BitCast(DI(), codes)), d8, out + at.i);
}
HWY_INLINE void StoreCodes(const PartVector& at, hn::Vec<DU> codes, uint8_t* out) {
  alignas(64) uint8_t lanes[kMaxLanes];
  StoreCodes(WholeVector{0}, codes, lanes);
  std::memcpy(out + at.i, lanes, static_cast<size_t>(at.n));
}

// Largest magnitude in columns [begin, end) of x; NaN counts as 0.
float BlockAmax(const ConstView& x, int64_t begin, int64_t end) {
  VF most = hn::Zero(DF());
  for (int64_t r = 0; r < x.dim(0); ++r) {
    const InRow row = RowAt(x, r);
    ForVectors(begin, end, [&](auto at) {
      const VF magnitude = hn::Abs(Load(at, row));
      most = hn::IfThenElse(hn::Gt(magnitude, most), magnitude, most);
    });
  }
  alignas(64) float lanes[kMaxLanes];
  hn::Store(most, DF(), lanes);
  return *std::max_element(lanes, lanes + LanesF());
}

// Codes of one block under this scale; returns how many elements they do not give back.
int64_t EncodeBlock(const ConstView& x, int64_t begin, int64_t end, float scale, const View& codes) {
  const VF s = hn::Set(DF(), scale);
  const DU du;
  int64_t differ = 0;
  for (int64_t r = 0; r < x.dim(0); ++r) {
    const InRow row = RowAt(x, r);
    uint8_t* out = reinterpret_cast<uint8_t*>(codes.raw()) + r * codes.stride();
    ForVectors(begin, end, [&](auto at) {
      const VF value = Load(at, row);
      const auto code = EncodeE4M3(hn::Div(value, s));
      StoreCodes(at, code, out);
      const VF back = hn::Mul(DecodeE4M3(code), s);
      auto bits = hn::BitCast(du, back), wanted = hn::BitCast(du, value);
      if (x.dtype() == DType::kBF16) bits = hn::ShiftLeft<16>(hn::ShiftRight<16>(RoundedBits(back)));
      const VF wrong = hn::IfThenElse(hn::RebindMask(DF(), hn::Ne(bits, wanted)), hn::Set(DF(), 1.0f), hn::Zero(DF()));
      differ += static_cast<int64_t>(LaneSum(at.Mask(wrong)));
    });
  }
  return differ;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <array>
#include <atomic>
#include <bitset>
#include <cmath>
#include <limits>
#include <optional>

#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(DequantizeRows);
HWY_EXPORT(BlockAmax);
HWY_EXPORT(EncodeBlock);

namespace {

constexpr int64_t Blocks(int64_t n) { return (n + kScaleBlock - 1) / kScaleBlock; }

float RecipeScale(float amax, ScaleFormat format) {
  if (amax == 0) return 1.0f;
  const float scale = std::max(amax / 448.0f, std::numeric_limits<float>::min());
  if (format == ScaleFormat::kF32) return scale;
  int exponent;
  return std::ldexp(1.0f, std::frexp(scale, &exponent) == 0.5f ? exponent - 1 : exponent);
}

// Scales between low and high; a limit itself may round to either side.
struct ScaleRange {
  double low, high;
  bool empty() const { return !(low < high); }
};

// Scales under which `code` gives the BF16 of magnitude bits: what rounds to it, divided by the code.
ScaleRange ScalesFor(uint16_t magnitude, float code) {
  const auto value = [](int bits) { return static_cast<double>(ToFloat(BF16{static_cast<uint16_t>(bits)})); };
  const double x = value(magnitude), below = value(magnitude - 1), above = value(magnitude + 1);
  return {(x + below) / 2 / code, (x + above) / 2 / code};
}

// The magnitudes above zero in a block, each once.
struct Magnitudes {
  static constexpr size_t kMost = 0x7e;  // as many as FP8 has
  std::array<uint16_t, kMost> bits;      // of BF16
  size_t count = 0;
};

// Nothing if there are more than FP8 has: the block is no image of codes.
std::optional<Magnitudes> MagnitudesIn(const ConstView& x, int64_t begin, int64_t end) {
  std::bitset<0x8000> seen;
  Magnitudes found;
  for (int64_t r = 0; r < x.dim(0); ++r) {
    const BF16* row = x.row<BF16>(r);
    for (int64_t i = begin; i < end; ++i) {
      const auto bits = static_cast<uint16_t>(row[i].bits & 0x7fff);
      if (bits == 0 || seen[bits]) continue;
      if (found.count == Magnitudes::kMost) return std::nullopt;
      seen.set(bits);
      found.bits[found.count++] = bits;
    }
  }
  return found;
}

// The scales under which every magnitude is the image of some code, if the largest is the image of `top`.
ScaleRange ReproducingScales(const Magnitudes& magnitudes, uint16_t largest, float top) {
  ScaleRange range = ScalesFor(largest, top);
  for (size_t i = 0; i < magnitudes.count && !range.empty(); ++i) {
    const uint16_t bits = magnitudes.bits[i];
    const float code = ToFloat(ToF8E4M3(static_cast<float>(ToFloat(BF16{bits}) / ((range.low + range.high) / 2))));
    if (code == 0) return {1, 0};
    const ScaleRange own = ScalesFor(bits, code);
    range = {std::max(range.low, own.low), std::min(range.high, own.high)};
  }
  return range;
}

// The float in the range with the fewest bits of mantissa: what a scale that was made by rule most likely was.
float ShortestIn(const ScaleRange& range) {
  int exponent;
  std::frexp(range.high, &exponent);
  for (int bits = 0; bits < 24; ++bits) {
    const double step = std::ldexp(1.0, exponent - 1 - bits), x = (std::floor(range.low / step) + 1) * step;
    if (x < range.high) return static_cast<float>(x);
  }
  return static_cast<float>((range.low + range.high) / 2);
}

// A scale that lets a BF16 block be given back exactly, if there is one.
std::optional<float> FittingScale(const ConstView& x, int64_t begin, int64_t end, float amax) {
  const auto magnitudes = MagnitudesIn(x, begin, end);
  if (!magnitudes) return std::nullopt;
  const uint16_t largest = ToBF16(amax).bits;
  for (int code = 0x7e; code > 0; --code) {
    const ScaleRange range = ReproducingScales(*magnitudes, largest, ToFloat(F8E4M3{static_cast<uint8_t>(code)}));
    if (!range.empty() && range.low >= std::numeric_limits<float>::min()) return ShortestIn(range);
  }
  return std::nullopt;
}

int64_t QuantizeBlock(const ConstView& x, int64_t begin, int64_t end, ScaleFormat format, const View& codes, float* scale) {
  const float amax = HWY_DYNAMIC_DISPATCH(BlockAmax)(x, begin, end);
  *scale = RecipeScale(amax, format);
  const int64_t differ = HWY_DYNAMIC_DISPATCH(EncodeBlock)(x, begin, end, *scale, codes);
  const bool searchable = format == ScaleFormat::kF32 && x.dtype() == DType::kBF16 && amax > 0 && std::isfinite(amax);
  if (differ == 0 || !searchable) return differ;
  const auto fitting = FittingScale(x, begin, end, amax);
  if (!fitting) return differ;
  if (HWY_DYNAMIC_DISPATCH(EncodeBlock)(x, begin, end, *fitting, codes) == 0) {
    *scale = *fitting;
    return 0;
  }
  return HWY_DYNAMIC_DISPATCH(EncodeBlock)(x, begin, end, *scale, codes);
}

}  // namespace

void DequantizeFp8(ConstView codes, ConstView scale, int64_t first_row, View y) {
  const int64_t rows = codes.dim(0), k = codes.dim(1);
  FATHOM_CHECK(codes.rank() == 2 && codes.dtype() == DType::kF8E4M3 && IsMatrix(y, rows, k), "{} to {}", codes.shape().ToString(),
               y.shape().ToString());
  FATHOM_CHECK(scale.rank() == 2 && scale.dim(1) == Blocks(k) && scale.dim(0) >= Blocks(first_row + rows) &&
                   (scale.dtype() == DType::kF32 || scale.dtype() == DType::kF8E8M0),
               "scale {}", scale.shape().ToString());
  ParallelRanges(rows, RowGrain(k), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(DequantizeRows)(codes.Rows(begin, end), scale, first_row + begin, y.Rows(begin, end));
  });
}

int64_t QuantizeFp8(ConstView x, ScaleFormat format, View codes, View scale) {
  const int64_t rows = x.dim(0), k = x.dim(1);
  FATHOM_CHECK(IsMatrix(x, rows, k) && codes.shape() == x.shape() && codes.dtype() == DType::kF8E4M3, "{} to {}", x.shape().ToString(),
               codes.shape().ToString());
  FATHOM_CHECK(scale.dtype() == DType::kF32 && scale.shape() == (Shape{Blocks(rows), Blocks(k)}), "scale {}", scale.shape().ToString());
  std::atomic<int64_t> differ = 0;
  ParallelRanges(Blocks(rows), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t first = b * kScaleBlock, last = std::min(rows, first + kScaleBlock);
      for (int64_t c = 0; c < Blocks(k); ++c) {
        differ += QuantizeBlock(x.Rows(first, last), c * kScaleBlock, std::min(k, (c + 1) * kScaleBlock), format, codes.Rows(first, last),
                                scale.row<float>(b) + c);
      }
    }
  });
  return differ;
}

}  // namespace fathom
#endif

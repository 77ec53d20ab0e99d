#include "fathom/kernels/quant/fp8_quantize.h"

#include <cmath>

#include "fathom/kernels/quant/fp8_quantize_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr Fp8Tile kTiles[] = {Fp8Tile::k1x128, Fp8Tile::k128x1, Fp8Tile::k128x128};

// Values over many powers of two, some zero, the first 128 x 128 block all zero when `zeros`.
std::vector<double> Values(int64_t rows, int64_t k, bool zeros) {
  std::vector<double> x = RandomVector(rows * k, 1);
  const std::vector<double> exponent = RandomVector(rows * k, 2, 3.0);
  for (int64_t i = 0; i < rows * k; ++i) {
    double& v = x[static_cast<size_t>(i)];
    v = static_cast<float>(v * std::exp2(std::round(exponent[static_cast<size_t>(i)])));
    if (i % 13 == 5 || (zeros && i / k < 128 && i % k < 128)) v = 0;
  }
  return x;
}

template <class X, class Y>
void Check(int64_t rows, int64_t k, int64_t gap, int64_t shift, bool zeros) {
  PaddedMatrix<X> x(rows, k, gap, shift, Values(rows, k, zeros));
  for (const Fp8Tile tile : kTiles) {
    for (const ScaleFormat format : {ScaleFormat::kF32, ScaleFormat::kUe8m0}) {
      SCOPED_TRACE(testing::Message() << rows << "x" << k << " tile " << static_cast<int>(tile) << " format " << static_cast<int>(format));
      PaddedMatrix<Y> y(rows, k, gap, 1), want(rows, k);
      RoundToFp8(x.view(), tile, format, y.view());
      want.Set(ToDoubles(RoundToFp8Ref(x.Floats(), rows, k, tile, format == ScaleFormat::kUe8m0)));
      EXPECT_TRUE(SameBits(y.Floats(), want.Floats()));
      EXPECT_TRUE(y.PaddingUntouched());
    }
  }
}

TEST(Fp8Quantize, BitsAreTheReferences) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t k : {1, 7, 15, 16, 17, 127, 128, 129, 200, 576}) {
      Check<float, float>(3, k, 0, 0, false);
      Check<BF16, float>(2, k, 5, 1, false);
    }
    Check<float, float>(130, 260, 0, 3, true);
    Check<BF16, BF16>(257, 130, 3, 1, true);
  });
}

TEST(Fp8Quantize, IsTheStoredFormAndRoundsOnce) {
  const int64_t rows = 150, k = 300;
  PaddedMatrix<float> x(rows, k, 0, 0, Values(rows, k, true)), y(rows, k), stored(rows, k), scale(2, 3);
  std::vector<F8E4M3> codes(static_cast<size_t>(rows * k));
  QuantizeFp8(x.view(), ScaleFormat::kF32, ViewOf(codes.data(), Shape{rows, k}), scale.view());
  DequantizeFp8(ViewOf(codes.data(), Shape{rows, k}), scale.view(), 0, stored.view());
  RoundToFp8(x.view(), Fp8Tile::k128x128, ScaleFormat::kF32, y.view());
  EXPECT_TRUE(SameBits(y.Floats(), stored.Floats()));
  RoundToFp8(x.view(), Fp8Tile::k128x128, ScaleFormat::kF32, x.view());
  EXPECT_TRUE(SameBits(x.Floats(), stored.Floats()));
}

TEST(Fp8Quantize, TilesKeepTheirOwnScale) {
  std::vector<double> values(256, 1.0);
  for (size_t i = 128; i < 256; ++i) values[i] = 1e-12;
  PaddedMatrix<float> x(1, 256, 0, 0, values), y(1, 256);
  RoundToFp8(x.view(), Fp8Tile::k1x128, ScaleFormat::kF32, y.view());
  EXPECT_TRUE(Close(y.Floats(), x.Values(), 0, 1e-6));
}

TEST(Fp8Quantize, NaNStaysWhereItIs) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    std::vector<double> values(130, 2.0);
    values[3] = std::nan("");
    PaddedMatrix<float> x(1, 130, 0, 0, values), y(1, 130);
    RoundToFp8(x.view(), Fp8Tile::k1x128, ScaleFormat::kUe8m0, y.view());
    EXPECT_TRUE(Close(y.Floats(), values, 0, 0));
  });
}

TEST(Fp8Quantize, BitsDoNotDependOnThreads) {
  const int64_t rows = 300, k = 300;
  for (const Fp8Tile tile : kTiles) {
    ExpectSameForAnyThreads([&] {
      PaddedMatrix<float> x(rows, k, 0, 0, Values(rows, k, false));
      RoundToFp8(x.view(), tile, ScaleFormat::kF32, x.view());
      return x.Floats();
    });
  }
}

}  // namespace
}  // namespace fathom

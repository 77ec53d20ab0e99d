#include "fathom/kernels/elementwise/vector_ops.h"

#include <cmath>
#include <limits>

#include "fathom/kernels/elementwise/vector_ops_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

template <class X, class Y>
void CheckCast(int64_t rows, int64_t d, int64_t gap, int64_t shift) {
  PaddedMatrix<X> x(rows, d, gap, shift, RandomVector(rows * d, 1));
  PaddedMatrix<Y> y(rows, d, gap, 1);
  Cast(x.view(), y.view());
  PaddedMatrix<Y> want(rows, d, 0, 0, x.Values());
  EXPECT_TRUE(SameBits(y.Floats(), want.Floats())) << rows << "x" << d;
  EXPECT_TRUE(y.PaddingUntouched());
}

void CheckArithmetic(int64_t rows, int64_t d, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << rows << "x" << d << " gap " << gap << " shift " << shift);
  PaddedMatrix<float> x(rows, d, gap, shift, RandomVector(rows * d, 1)), y(rows, d, gap, 1, RandomVector(rows * d, 2)), dots(rows, 1);
  PaddedMatrix<BF16> b(rows, d, gap, shift, RandomVector(rows * d, 3));
  RowDots(x.view(), b.view(), dots.view());
  EXPECT_TRUE(Close(dots.Floats(), RowDotsRef(x.Values(), b.Values(), static_cast<size_t>(rows)), 2e-5, 1e-6));
  EXPECT_NEAR(SumSquares(x.view()), SumSquaresRef(x.Values()), 3e-7 * SumSquaresRef(x.Values()));
  EXPECT_NEAR(SumSquares(b.view()), SumSquaresRef(b.Values()), 3e-7 * SumSquaresRef(b.Values()));
  EXPECT_NEAR(Sum(x.view()), SumRef(x.Values()), 5e-5);
  const auto want = AddScaledRef(0.3, x.Values(), y.Values());
  AddScaled(0.3f, x.view(), y.view());
  EXPECT_TRUE(Close(y.Floats(), want, 1e-6, 1e-6));
  AddScaled(-1.0f, b.view(), y.view());
  EXPECT_TRUE(Close(y.Floats(), AddScaledRef(-1.0, b.Values(), want), 1e-6, 1e-6));
  EXPECT_TRUE(y.PaddingUntouched());
  Fill(0.5f, b.view());
  EXPECT_EQ(b.Floats(), std::vector<float>(static_cast<size_t>(rows * d), 0.5f));
  EXPECT_TRUE(b.PaddingUntouched());
}

TEST(VectorOps, EqualReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t d : kRowSizes) {
      CheckCast<float, BF16>(2, d, 0, 0);
      CheckCast<BF16, float>(3, d, 3, 1);
      CheckCast<F16, float>(3, d, 1, 3);
      CheckCast<F16, BF16>(1, d, 0, 1);
      CheckArithmetic(3, d, 0, 0);
      CheckArithmetic(2, d, 5, 3);
    }
  });
}

TEST(VectorOps, CastRoundsLikeToBF16) {
  const float inf = std::numeric_limits<float>::infinity();
  const float values[] = {1.00390625f, 1.01171875f, 3.4e38f, -3.4e38f, inf,
                          -inf,        1e-40f,      -0.0f,   65280.0f, std::bit_cast<float>(0x7f800001u)};
  std::vector<float> x;
  for (int i = 0; i < 37; ++i) x.push_back(values[i % 10]);
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    std::vector<BF16> y(x.size());
    Cast(ViewOf(x.data(), Shape{37}), ViewOf(y.data(), Shape{37}));
    for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i].bits, ToBF16(x[i]).bits) << x[i];
  });
}

TEST(VectorOps, ScaleMultiplies) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t n : {1, 15, 17, 100, 40000}) {
      PaddedMatrix<float> y(1, n, 0, 1, RandomVector(n, 1));
      auto want = y.Values();
      for (double& v : want) v *= 0.1f;
      Scale(0.1f, y.view());
      EXPECT_TRUE(Close(y.Floats(), want, 0, 1e-7));
      EXPECT_TRUE(y.PaddingUntouched());
    }
  });
}

template <class T>
void CheckFinite(T bad) {
  for (const int64_t n : {1, 5, 16, 33, 70, 5000}) {
    std::vector<T> x(static_cast<size_t>(n), T{});
    EXPECT_FALSE(HasNonFinite(ViewOf(x.data(), Shape{n})));
    for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
      x[static_cast<size_t>(at)] = bad;
      EXPECT_TRUE(HasNonFinite(ViewOf(x.data(), Shape{n}))) << at << " of " << n;
      x[static_cast<size_t>(at)] = T{};
    }
  }
}

TEST(VectorOps, FindsNonFiniteNumbers) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    CheckFinite(std::numeric_limits<float>::infinity());
    CheckFinite(-std::numeric_limits<float>::quiet_NaN());
    CheckFinite(ToBF16(std::numeric_limits<float>::quiet_NaN()));
    CheckFinite(ToF16(-std::numeric_limits<float>::infinity()));
    CheckFinite(std::numeric_limits<double>::quiet_NaN());
  });
  // The largest finite numbers are finite; padding is not looked at.
  std::vector<float> largest(20, std::numeric_limits<float>::max());
  EXPECT_FALSE(HasNonFinite(ViewOf(largest.data(), Shape{20})));
  PaddedMatrix<float> strided(3, 20, 4, 1, RandomVector(60, 1));
  EXPECT_FALSE(HasNonFinite(strided.view()));
}

TEST(VectorOps, BitsDoNotDependOnThreads) {
  const int64_t rows = 70, d = 1900;
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> x(rows, d, 3, 0, RandomVector(rows * d, 1)), y(rows, d, 0, 0, RandomVector(rows * d, 2));
    AddScaled(0.7f, x.view(), y.view());
    Scale(1.1f, y.view());
    std::vector<float> all = y.Floats();
    for (const double sum : {SumSquares(x.view()), SumSquares(y.view()), Sum(x.view()), Sum(y.view())}) {
      all.push_back(static_cast<float>(sum));
      all.push_back(static_cast<float>((sum - static_cast<double>(all.back())) * 1e7));
    }
    return all;
  });
}

}  // namespace
}  // namespace fathom

#include "fathom/kernels/norm/layer_norm.h"

#include "fathom/kernels/norm/layer_norm_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr double kEps = 1e-6;
constexpr float kEpsF = 1e-6f;

template <class X, class Y>
void CheckForward(int64_t rows, int64_t d, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << rows << "x" << d << " gap " << gap << " shift " << shift);
  PaddedMatrix<X> x(rows, d, gap, shift, RandomVector(rows * d, 1));
  PaddedMatrix<float> w(1, d, 0, shift, RandomVector(d, 2)), b(1, d, 0, 1, RandomVector(d, 3)), stats(rows, 2);
  PaddedMatrix<Y> y(rows, d, gap, shift);
  LayerNormForward(x.view(), w.view(), b.view(), kEpsF, y.view(), stats.view());
  EXPECT_TRUE(Close(y.Floats(), LayerNormForwardRef(x.Values(), w.Values(), b.Values(), kEps), 2e-6, sizeof(Y) == 4 ? 1e-6 : 0.005));
  EXPECT_TRUE(y.PaddingUntouched());
  EXPECT_TRUE(stats.PaddingUntouched());
}

void CheckBackward(int64_t rows, int64_t d, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << rows << "x" << d << " gap " << gap << " shift " << shift);
  PaddedMatrix<float> x(rows, d, gap, shift, RandomVector(rows * d, 1)), dy(rows, d, gap, shift, RandomVector(rows * d, 4)),
      dx(rows, d, gap, shift);
  PaddedMatrix<float> w(1, d, 0, shift, RandomVector(d, 2)), b(1, d, 0, 1, RandomVector(d, 3)), stats(rows, 2), y(rows, d);
  PaddedMatrix<float> dw(1, d, 0, 0, RandomVector(d, 5)), db(1, d, 0, 2, RandomVector(d, 6));
  const auto dw_before = dw.Values(), db_before = db.Values();
  Arena scratch = DirtyArena(1 << 23);
  LayerNormForward(x.view(), w.view(), b.view(), kEpsF, y.view(), stats.view());
  LayerNormBackward(dy.view(), x.view(), w.view(), stats.view(), {dx.view(), dw.view(), db.view()}, scratch);
  auto want = LayerNormBackwardRef(dy.Values(), x.Values(), w.Values(), kEps);
  for (size_t i = 0; i < want.dw.size(); ++i) {
    want.dw[i] += dw_before[i];
    want.db[i] += db_before[i];
  }
  EXPECT_TRUE(RelativeL2(dx.Floats(), want.dx, 2e-6));
  EXPECT_TRUE(RelativeL2(dw.Floats(), want.dw, 1e-6));
  EXPECT_TRUE(RelativeL2(db.Floats(), want.db, 3e-7));
  EXPECT_TRUE(dx.PaddingUntouched());
  EXPECT_TRUE(dw.PaddingUntouched());
  EXPECT_TRUE(db.PaddingUntouched());
}

TEST(LayerNorm, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t d : kRowSizes) {
      if (d < 3) continue;  // of one element nothing but the bias is left, of two only its sign
      CheckForward<float, float>(3, d, 0, 0);
      CheckForward<BF16, BF16>(3, d, 3, 1);
      CheckBackward(2, d, 0, 0);
      CheckBackward(35, d, 5, 1);
    }
  });
}

TEST(LayerNorm, KeepsItsPrecisionFarFromZero) {
  const int64_t d = 128;
  std::vector<double> values = RandomVector(d, 1);
  for (double& v : values) v = static_cast<float>(v + 1000.0);
  PaddedMatrix<float> x(1, d, 0, 0, values), w(1, d, 0, 0, std::vector<double>(d, 1.0)), b(1, d, 0, 0, std::vector<double>(d, 0.0)),
      y(1, d);
  LayerNormForward(x.view(), w.view(), b.view(), kEpsF, y.view(), View());
  EXPECT_TRUE(Close(y.Floats(), LayerNormForwardRef(x.Values(), w.Values(), b.Values(), kEps), 1e-4, 0));
}

TEST(LayerNorm, ReferenceGradientIsTheComplexStep) {
  const int64_t rows = 2, d = 7;
  const auto x = RandomVector(rows * d, 1), w = RandomVector(d, 2), b = RandomVector(d, 3), dy = RandomVector(rows * d, 4);
  std::vector<double> all = x;
  all.insert(all.end(), w.begin(), w.end());
  all.insert(all.end(), b.begin(), b.end());
  const auto f = [&](const std::vector<std::complex<double>>& z) {
    const auto at_w = z.begin() + rows * d;
    return LayerNormForwardRef<std::complex<double>>({z.begin(), at_w}, {at_w, at_w + d}, {at_w + d, z.end()}, kEps);
  };
  auto got = LayerNormBackwardRef(dy, x, w, kEps);
  got.dx.insert(got.dx.end(), got.dw.begin(), got.dw.end());
  got.dx.insert(got.dx.end(), got.db.begin(), got.db.end());
  EXPECT_TRUE(RelativeL2(got.dx, ComplexStepGradient(f, all, dy), 1e-12));
}

TEST(LayerNorm, BitsDoNotDependOnThreads) {
  const int64_t rows = 200, d = 128;
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> x(rows, d, 0, 0, RandomVector(rows * d, 1)), dy(rows, d, 0, 0, RandomVector(rows * d, 4)), dx(rows, d), y(rows, d);
    PaddedMatrix<float> w(1, d, 0, 0, RandomVector(d, 2)), b(1, d, 0, 0, RandomVector(d, 3)), stats(rows, 2);
    PaddedMatrix<float> sums(2, d, 0, 0, RandomVector(2 * d, 5));
    Arena scratch = DirtyArena(1 << 20);
    LayerNormForward(x.view(), w.view(), b.view(), kEpsF, y.view(), stats.view());
    LayerNormBackward(dy.view(), x.view(), w.view(), stats.view(), {dx.view(), sums.view().Rows(0, 1), sums.view().Rows(1, 2)}, scratch);
    std::vector<float> all = dx.Floats(), rest = sums.Floats();
    all.insert(all.end(), rest.begin(), rest.end());
    return all;
  });
}

}  // namespace
}  // namespace fathom

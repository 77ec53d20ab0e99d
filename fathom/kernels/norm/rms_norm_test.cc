#include "fathom/kernels/norm/rms_norm.h"

#include "fathom/kernels/norm/rms_norm_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr double kEps = 1e-6;
constexpr float kEpsF = 1e-6f;

template <class T>
double Tolerance() {
  return sizeof(T) == 4 ? 1e-6 : 0.005;
}

template <class X, class W, class Y>
void CheckForward(int64_t rows, int64_t d, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << rows << "x" << d << " gap " << gap << " shift " << shift);
  PaddedMatrix<X> x(rows, d, gap, shift, RandomVector(rows * d, 1));
  PaddedMatrix<W> w(1, d, 0, shift, RandomVector(d, 2));
  PaddedMatrix<Y> y(rows, d, gap, shift);
  PaddedMatrix<float> rstd(rows, 1);
  RmsNormForward(x.view(), w.view(), kEpsF, y.view(), rstd.view());
  EXPECT_TRUE(Close(y.Floats(), RmsNormForwardRef(x.Values(), w.Values(), kEps), 1e-7, Tolerance<Y>()));
  EXPECT_TRUE(y.PaddingUntouched());
  EXPECT_TRUE(rstd.PaddingUntouched());
}

template <class G, class X, class Dx>
void CheckBackward(int64_t rows, int64_t d, int64_t gap, int64_t shift, bool add) {
  SCOPED_TRACE(testing::Message() << rows << "x" << d << " gap " << gap << " shift " << shift << " add " << add);
  PaddedMatrix<G> dy(rows, d, gap, shift, RandomVector(rows * d, 3));
  PaddedMatrix<X> x(rows, d, gap, shift, RandomVector(rows * d, 1));
  PaddedMatrix<float> w(1, d, 0, shift, RandomVector(d, 2)), y(rows, d), rstd(rows, 1), dw(1, d, 0, shift, RandomVector(d, 4));
  PaddedMatrix<Dx> dx(rows, d, gap, shift, RandomVector(rows * d, 5));
  const auto dx_before = dx.Values(), dw_before = dw.Values();
  Arena scratch = DirtyArena(1 << 22);
  RmsNormForward(x.view(), w.view(), kEpsF, y.view(), rstd.view());
  RmsNormBackward(dy.view(), x.view(), w.view(), rstd.view(), {dx.view(), add, dw.view()}, scratch);
  auto want = RmsNormBackwardRef(dy.Values(), x.Values(), w.Values(), kEps);
  for (size_t i = 0; i < want.dw.size(); ++i) want.dw[i] += dw_before[i];
  if (add) {
    for (size_t i = 0; i < want.dx.size(); ++i) want.dx[i] += dx_before[i];
  }
  EXPECT_TRUE(Close(dx.Floats(), want.dx, d == 1 ? 1e-5 : 5e-6, Tolerance<Dx>()));
  EXPECT_TRUE(RelativeL2(dw.Floats(), want.dw, 3e-7));
  EXPECT_TRUE(dx.PaddingUntouched());
  EXPECT_TRUE(dw.PaddingUntouched());
}

TEST(RmsNorm, ForwardEqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t d : kRowSizes) {
      CheckForward<float, float, float>(3, d, 0, 0);
      CheckForward<float, BF16, float>(3, d, 5, 1);
      CheckForward<BF16, float, BF16>(2, d, 3, 3);
      CheckForward<float, float, BF16>(2, d, 1, 2);
    }
  });
}

TEST(RmsNorm, BackwardEqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t d : kRowSizes) {
      CheckBackward<float, float, float>(3, d, 0, 0, false);
      CheckBackward<float, float, float>(35, d, 5, 1, true);
      CheckBackward<BF16, BF16, BF16>(2, d, 3, 3, false);
    }
  });
}

TEST(RmsNorm, ReferenceGradientIsTheComplexStep) {
  const int64_t rows = 3, d = 7;
  const auto x = RandomVector(rows * d, 1), w = RandomVector(d, 2), dy = RandomVector(rows * d, 3);
  std::vector<double> all = x;
  all.insert(all.end(), w.begin(), w.end());
  const auto f = [&](const std::vector<std::complex<double>>& z) {
    return RmsNormForwardRef<std::complex<double>>({z.begin(), z.begin() + rows * d}, {z.begin() + rows * d, z.end()}, kEps);
  };
  auto got = RmsNormBackwardRef(dy, x, w, kEps);
  got.dx.insert(got.dx.end(), got.dw.begin(), got.dw.end());
  EXPECT_TRUE(RelativeL2(got.dx, ComplexStepGradient(f, all, dy), 1e-12));
}

TEST(RmsNorm, WorksInPlaceAndWithoutOptionalOutputs) {
  const int64_t rows = 4, d = 100;
  PaddedMatrix<float> x(rows, d, 0, 0, RandomVector(rows * d, 1)), w(1, d, 0, 0, RandomVector(d, 2));
  PaddedMatrix<float> y(rows, d), rstd(rows, 1), dx(rows, d), dy(rows, d, 0, 0, RandomVector(rows * d, 3));
  RmsNormForward(x.view(), w.view(), kEpsF, y.view(), rstd.view());
  Arena scratch = DirtyArena(1 << 20);
  RmsNormBackward(dy.view(), x.view(), w.view(), rstd.view(), {.dx = dx.view()}, scratch);
  RmsNormBackward(dy.view(), x.view(), w.view(), rstd.view(), {.dx = dy.view()}, scratch);
  EXPECT_TRUE(SameBits(dy.Floats(), dx.Floats()));
  RmsNormForward(x.view(), w.view(), kEpsF, x.view(), View());
  EXPECT_TRUE(SameBits(x.Floats(), y.Floats()));
}

TEST(RmsNorm, BitsDoNotDependOnThreads) {
  const int64_t rows = 130, d = 576;
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> x(rows, d, 0, 0, RandomVector(rows * d, 1)), w(1, d, 0, 0, RandomVector(d, 2)), dw(1, d, 0, 0, RandomVector(d, 4));
    PaddedMatrix<float> rstd(rows, 1), dx(rows, d), dy(rows, d, 0, 0, RandomVector(rows * d, 3));
    Arena scratch = DirtyArena(1 << 20);
    RmsNormForward(x.view(), w.view(), kEpsF, dx.view(), rstd.view());
    RmsNormBackward(dy.view(), x.view(), w.view(), rstd.view(), {dx.view(), true, dw.view()}, scratch);
    std::vector<float> all = dx.Floats(), sums = dw.Floats();
    all.insert(all.end(), sums.begin(), sums.end());
    return all;
  });
}

}  // namespace
}  // namespace fathom

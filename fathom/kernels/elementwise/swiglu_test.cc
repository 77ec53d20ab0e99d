#include "fathom/kernels/elementwise/swiglu.h"

#include <cmath>

#include "fathom/kernels/elementwise/swiglu_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

std::vector<float> RowWeights(int64_t rows, bool wanted) { return wanted ? ToFloats(RandomVector(rows, 9)) : std::vector<float>(); }
std::vector<double> RowWeightsRef(const std::vector<float>& weights, int64_t rows) {
  return weights.empty() ? std::vector<double>(static_cast<size_t>(rows), 1.0) : ToDoubles(weights);
}

template <class X, class Y>
void CheckForward(int64_t rows, int64_t f, int64_t gap, int64_t shift, bool weighted) {
  SCOPED_TRACE(testing::Message() << rows << "x" << f << " gap " << gap << " shift " << shift);
  PaddedMatrix<X> gate(rows, f, gap, shift, RandomVector(rows * f, 1, 3.0)), up(rows, f, gap, 1, RandomVector(rows * f, 2));
  PaddedMatrix<Y> y(rows, f, gap, shift);
  const auto weights = RowWeights(rows, weighted);
  SwigluForward(gate.view(), up.view(), weights, y.view());
  EXPECT_TRUE(
      Close(y.Floats(), SwigluForwardRef(gate.Values(), up.Values(), RowWeightsRef(weights, rows)), 1e-30, sizeof(Y) == 4 ? 5e-7 : 0.005));
  EXPECT_TRUE(y.PaddingUntouched());
}

template <class X>
void CheckBackward(int64_t rows, int64_t f, int64_t gap, int64_t shift, bool weighted) {
  SCOPED_TRACE(testing::Message() << rows << "x" << f << " gap " << gap << " shift " << shift);
  PaddedMatrix<X> gate(rows, f, gap, shift, RandomVector(rows * f, 1, 3.0)), up(rows, f, gap, 1, RandomVector(rows * f, 2));
  PaddedMatrix<X> dy(rows, f, gap, 2, RandomVector(rows * f, 3)), dgate(rows, f, gap, shift), dup(rows, f, gap, 1);
  const auto weights = RowWeights(rows, weighted);
  std::vector<float> d_weights(weights.size());
  SwigluBackward(dy.view(), gate.view(), up.view(), weights, dgate.view(), dup.view(), d_weights);
  const auto want = SwigluBackwardRef(dy.Values(), gate.Values(), up.Values(), RowWeightsRef(weights, rows));
  const double relative = sizeof(X) == 4 ? 2e-6 : 0.005;
  EXPECT_TRUE(Close(dup.Floats(), want.dup, 1e-30, relative));
  EXPECT_TRUE(Close(dgate.Floats(), want.dgate, 1e-6, relative));
  if (weighted) {
    EXPECT_TRUE(Close(d_weights, want.d_row_weight, 1e-5, 2e-6));
  }
  EXPECT_TRUE(dgate.PaddingUntouched());
  EXPECT_TRUE(dup.PaddingUntouched());
  // Gradients may take the place of their inputs.
  SwigluBackward(dy.view(), gate.view(), up.view(), weights, gate.view(), up.view(), d_weights);
  EXPECT_TRUE(SameBits(gate.Floats(), dgate.Floats()));
  EXPECT_TRUE(SameBits(up.Floats(), dup.Floats()));
}

TEST(Swiglu, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t f : kRowSizes) {
      CheckForward<float, float>(3, f, 0, 0, false);
      CheckForward<float, BF16>(2, f, 3, 1, true);
      CheckForward<BF16, BF16>(2, f, 1, 3, true);
      CheckBackward<float>(3, f, 0, 0, true);
      CheckBackward<float>(2, f, 5, 1, false);
      CheckBackward<BF16>(2, f, 3, 3, true);
    }
  });
}

TEST(Swiglu, ExtremeGates) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    const std::vector<double> gates = {-1e30, -200, -104, -88, -20, -0.0, 0.0, 20, 88.7, 200, 1e30, std::nan("")};
    PaddedMatrix<float> gate(1, 12, 0, 0, gates), up(1, 12, 0, 0, std::vector<double>(12, 1.0)), y(1, 12);
    SwigluForward(gate.view(), up.view(), {}, y.view());
    EXPECT_TRUE(Close(y.Floats(), SwigluForwardRef(gate.Values(), up.Values(), {1.0}), 2e-36, 5e-7));
  });
}

TEST(Swiglu, ReferenceGradientIsTheComplexStep) {
  const int64_t rows = 2, f = 5, n = rows * f;
  const auto gate = RandomVector(n, 1), up = RandomVector(n, 2), dy = RandomVector(n, 3), weights = RandomVector(rows, 4);
  std::vector<double> all = gate;
  all.insert(all.end(), up.begin(), up.end());
  all.insert(all.end(), weights.begin(), weights.end());
  const auto function = [&](const std::vector<std::complex<double>>& z) {
    return SwigluForwardRef<std::complex<double>>({z.begin(), z.begin() + n}, {z.begin() + n, z.begin() + 2 * n},
                                                  {z.begin() + 2 * n, z.end()});
  };
  auto got = SwigluBackwardRef(dy, gate, up, weights);
  got.dgate.insert(got.dgate.end(), got.dup.begin(), got.dup.end());
  got.dgate.insert(got.dgate.end(), got.d_row_weight.begin(), got.d_row_weight.end());
  EXPECT_TRUE(RelativeL2(got.dgate, ComplexStepGradient(function, all, dy), 1e-12));
}

TEST(Swiglu, BitsDoNotDependOnThreads) {
  const int64_t rows = 101, f = 250;
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> gate(rows, f, 0, 0, RandomVector(rows * f, 1)), up(rows, f, 0, 0, RandomVector(rows * f, 2)),
        dy(rows, f, 0, 0, RandomVector(rows * f, 3));
    const auto weights = RowWeights(rows, true);
    std::vector<float> all(weights.size());
    SwigluBackward(dy.view(), gate.view(), up.view(), weights, gate.view(), up.view(), all);
    for (const float v : gate.Floats()) all.push_back(v);
    for (const float v : up.Floats()) all.push_back(v);
    return all;
  });
}

}  // namespace
}  // namespace fathom

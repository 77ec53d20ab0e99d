#include "fathom/kernels/elementwise/rounding.h"

#include <limits>

#include "fathom/kernels/elementwise/rounding_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr Rounding kByChance{true, 0xfffffff0u};  // the counter wraps around

std::vector<float> Scaled(float scale, PaddedMatrix<float>& x, const Rounding& rounding) {
  PaddedMatrix<BF16> y(1, x.view().dim(1), 0, 1);
  ScaleInto(scale, x.view(), y.view(), rounding);
  EXPECT_TRUE(y.PaddingUntouched());
  return y.Floats();
}

TEST(Rounding, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t n : kRowSizes) {
      PaddedMatrix<float> x(1, n, 0, 1, RandomVector(n, 1));
      std::vector<float> want;
      for (const float v : x.Floats())
        want.push_back(RoundByChanceRef(3 * v, RandomWordRef(kByChance.key, static_cast<uint32_t>(want.size())) & 0xffff));
      EXPECT_TRUE(SameBits(Scaled(3, x, kByChance), want)) << n;
    }
  });
}

TEST(Rounding, IsRightOnAverage) {
  constexpr int64_t kCount = 200000;
  const double values[] = {1 + 0x1p-7 * 0.3, -(1 + 0x1p-7 * 0.01), 3e-39};
  for (const double v : values) {
    PaddedMatrix<float> x(1, kCount, 0, 0, std::vector<double>(kCount, v));
    double sum = 0;
    for (const float y : Scaled(1, x, kByChance)) sum += y;
    EXPECT_TRUE(std::fabs(sum / kCount - v) <= 3e-5 * std::fabs(v)) << sum / kCount;
  }
}

TEST(Rounding, LeavesWhatBF16Holds) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<double> values = {0, -0.0, 1, -1.5, inf, -inf, 0x1.fep127};
  PaddedMatrix<float> x(1, std::ssize(values), 0, 0, values);
  EXPECT_TRUE(SameBits(Scaled(1, x, kByChance), x.Floats()));
  PaddedMatrix<float> nan(1, 1, 0, 0, std::vector<double>{std::numeric_limits<double>::quiet_NaN()});
  EXPECT_TRUE(std::isnan(Scaled(1, nan, kByChance)[0]));
}

TEST(Rounding, OtherwiseGoesToTheNearest) {
  PaddedMatrix<float> x(1, 65, 0, 0, RandomVector(65, 1));
  PaddedMatrix<BF16> want(1, 65, 0, 0, x.Values());
  EXPECT_TRUE(SameBits(Scaled(1, x, {}), want.Floats()));
  PaddedMatrix<float> same(1, 65);
  ScaleInto(1, x.view(), same.view(), kByChance);  // F32 is not rounded
  EXPECT_TRUE(SameBits(same.Floats(), x.Floats()));
}

TEST(Rounding, BitsDoNotDependOnThreads) {
  PaddedMatrix<float> x(1, 70001, 0, 0, RandomVector(70001, 1));
  ExpectSameForAnyThreads([&] { return Scaled(1, x, kByChance); });
}

}  // namespace
}  // namespace fathom

#include "fathom/kernels/simd/simd.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/simd/simd_test.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void ExpAll(const float* x, int64_t n, float* y) {
  ForVectors(n, [=](auto at) { at.Store(ExpF(at.Load(x)), y); });
}
void SigmoidAll(const float* x, int64_t n, float* y) {
  ForVectors(n, [=](auto at) { at.Store(SigmoidF(at.Load(x)), y); });
}
double SumAll(const float* x, int64_t n) {
  return RowSum(n, [=](auto at, VF sum) { return hn::Add(sum, at.Load(x)); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "fathom/base/error.h"
#include "fathom/testing/close.h"

namespace fathom {
HWY_EXPORT(ExpAll);
HWY_EXPORT(SigmoidAll);
HWY_EXPORT(SumAll);
namespace {

// |got - want| in units of the last place of want as a float.
double Ulps(float got, double want) {
  const double step = std::ldexp(1.0, std::max(std::ilogb(want) - 23, -149));
  return std::fabs(got - want) / step;
}

TEST(Simd, PinnedTargetIsLive) {
  for (const std::string& target : SimdTargets()) {
    PinSimdTarget(target);
    EXPECT_EQ(LiveSimdTarget(), target);
  }
  PinSimdTarget("");
  EXPECT_EQ(LiveSimdTarget(), SimdTargets().front());
  EXPECT_EQ(SimdTargets().back(), "scalar");
  EXPECT_THROW(PinSimdTarget("mmx"), Error);
}

// Subnormal results are rounded a second time.
TEST(Simd, ExpRoundsWell) {
  std::vector<float> x;
  for (double v = -103.9; v < 88.72; v += 0.00037) x.push_back(static_cast<float>(v));
  for (int i = -60; i < 0; ++i) x.push_back(std::ldexp(1.0f, i));
  std::vector<float> y(x.size());
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    HWY_DYNAMIC_DISPATCH(ExpAll)(x.data(), std::ssize(x), y.data());
    double worst = 0, worst_subnormal = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      double& most = x[i] < -87.3f ? worst_subnormal : worst;
      most = std::max(most, Ulps(y[i], std::exp(static_cast<double>(x[i]))));
    }
    EXPECT_LE(worst, 1.01);
    EXPECT_LE(worst_subnormal, 1.1);
  });
}

TEST(Simd, ExpAtTheEnds) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {-inf, -1e30f, -104.1f, -0.0f, 0.0f, 88.73f, 1e30f, inf, std::nanf("")};
  const std::vector<double> want = {0, 0, 0, 1, 1, inf, inf, inf, std::nan("")};
  std::vector<float> y(x.size());
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    HWY_DYNAMIC_DISPATCH(ExpAll)(x.data(), std::ssize(x), y.data());
    EXPECT_TRUE(Close(y, want, 0, 0));
  });
}

TEST(Simd, SigmoidIsWithinTwoAndAHalfUlps) {
  std::vector<float> x;
  for (double v = -87; v < 30; v += 0.00031) x.push_back(static_cast<float>(v));
  std::vector<float> y(x.size());
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    HWY_DYNAMIC_DISPATCH(SigmoidAll)(x.data(), std::ssize(x), y.data());
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, Ulps(y[i], 1.0 / (1.0 + std::exp(-static_cast<double>(x[i])))));
    EXPECT_LE(worst, 2.5);
  });
}

TEST(Simd, LongSumsKeepTheirDigits) {
  const std::vector<float> x(1000003, 0.1f);
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    const double want = 1000003 * static_cast<double>(0.1f);
    EXPECT_NEAR(HWY_DYNAMIC_DISPATCH(SumAll)(x.data(), std::ssize(x)), want, 1e-6 * want);
  });
}

}  // namespace
}  // namespace fathom
#endif  // HWY_ONCE

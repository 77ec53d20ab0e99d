#include "fathom/kernels/elementwise/random_fill.h"

#include <gtest/gtest.h>

#include "fathom/base/threads.h"
#include "fathom/tensor/tensor.h"
#include "fathom/testing/close.h"

namespace fathom {
namespace {

constexpr int64_t kCount = 200'001;

std::vector<float> Filled(void (*fill)(uint64_t, uint64_t, double, View), uint64_t seed, uint64_t stream, double deviation) {
  std::vector<float> x(kCount);
  fill(seed, stream, deviation, ViewOf(x.data(), {kCount}));
  return x;
}

double Deviation(const std::vector<float>& x) {
  double sum = 0, squares = 0;
  for (const float v : x) {
    sum += v;
    squares += static_cast<double>(v) * v;
  }
  const double mean = sum / kCount;
  EXPECT_LT(std::fabs(mean), 0.01 * std::sqrt(squares / kCount));
  return std::sqrt(squares / kCount - mean * mean);
}

TEST(RandomFill, HasTheDeviationAsked) {
  EXPECT_NEAR(Deviation(Filled(FillNormal, 1, 2, 0.5)), 0.5, 0.005);
  EXPECT_NEAR(Deviation(Filled(FillTruncatedNormal, 1, 2, 0.5)), 0.5, 0.005);
  for (const float v : Filled(FillTruncatedNormal, 1, 2, 1.0)) ASSERT_LE(std::fabs(v), 2.0 / 0.8796);
}

TEST(RandomFill, DependsOnSeedAndStreamNotOnThreads) {
  const auto x = Filled(FillTruncatedNormal, 1, 2, 1.0);
  SetThreads(3);
  EXPECT_TRUE(SameBits(x, Filled(FillTruncatedNormal, 1, 2, 1.0)));
  SetThreads(0);
  EXPECT_FALSE(SameBits(x, Filled(FillTruncatedNormal, 2, 2, 1.0)));
  EXPECT_FALSE(SameBits(x, Filled(FillTruncatedNormal, 1, 3, 1.0)));
}

TEST(RandomFill, RoundsToBF16) {
  Tensor a(DType::kF32, {1000}), b(DType::kBF16, {1000});
  FillNormal(5, 6, 1.0, a.mutable_view());
  FillNormal(5, 6, 1.0, b.mutable_view());
  for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(ToBF16(a.data<float>()[i]), b.data<BF16>()[i]);
}

}  // namespace
}  // namespace fathom

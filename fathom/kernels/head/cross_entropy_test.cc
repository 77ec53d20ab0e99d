#include "fathom/kernels/head/cross_entropy.h"

#include <cmath>

#include "fathom/kernels/head/cross_entropy_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr float kScale = 0.25f, kZ = 1e-3f;

struct Batch {
  std::vector<double> logits;
  std::vector<int32_t> targets;
  std::vector<float> weight;
};

Batch MakeBatch(int64_t rows, int64_t n) {
  Batch b{RandomVector(rows * n, 1, 4.0), {}, {}};
  const CounterRng rng(3, 4);
  for (int64_t t = 0; t < rows; ++t) {
    b.targets.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(t), static_cast<uint64_t>(n))));
    b.weight.push_back(t % 3 == 1 ? 0.0f : 0.5f + static_cast<float>(t));
  }
  return b;
}

template <class G>
void Check(int64_t rows, int64_t n, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << rows << "x" << n << " gap " << gap << " shift " << shift);
  const Batch b = MakeBatch(rows, n);
  PaddedMatrix<float> logits(rows, n, gap, shift, b.logits);
  PaddedMatrix<G> d(rows, n, gap, 1);
  std::vector<float> nll(b.targets.size());
  const CrossEntropySums sums = CrossEntropy(logits.view(), {b.targets, b.weight, kZ, kScale}, d.view(), nll);
  const auto weight = ToDoubles(b.weight);
  const double want = CrossEntropyRef(b.logits, b.targets, weight, 0.0), want_z = CrossEntropyRef(b.logits, b.targets, weight, kZ) - want;
  EXPECT_NEAR(sums.loss, want, 2e-7 * std::fabs(want) + 1e-6);
  EXPECT_NEAR(sums.z_loss, want_z, 1e-6 * want_z);
  double total = 0;
  for (const double w : weight) total += w;
  EXPECT_EQ(sums.weight, total);
  EXPECT_TRUE(Close(nll, TokenLossRef(b.logits, b.targets), 1e-6, 1e-6));
  const auto gradient = CrossEntropyBackwardRef(b.logits, b.targets, weight, kZ, kScale);
  EXPECT_TRUE(Close(d.Floats(), gradient, 1e-12, sizeof(G) == 4 ? 2e-6 : 0.005));
  EXPECT_TRUE(d.PaddingUntouched());
  // Without a gradient, and with the gradient in the logits' place.
  const CrossEntropySums plain = CrossEntropy(logits.view(), {b.targets, b.weight, kZ, kScale}, View(), {});
  EXPECT_EQ(plain.loss, sums.loss);
  CrossEntropy(logits.view(), {b.targets, b.weight, kZ, kScale}, logits.view(), nll);
  EXPECT_TRUE(Close(logits.Floats(), gradient, 1e-12, 2e-6));
}

TEST(CrossEntropy, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t n : {1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 65, 100, 512, 4096, 4099, 8192}) {
      Check<float>(4, n, 0, 0);
      Check<float>(3, n, 5, 3);
      Check<BF16>(4, n, 1, 2);
    }
    Check<float>(2, 129280, 0, 0);
  });
}

TEST(CrossEntropy, CertainTargetsKeepTheirSmallGradient) {
  if (LiveSimdTarget() == "scalar") GTEST_SKIP() << "one f32 lane loses 1e-13 beside 1";
  PaddedMatrix<float> logits(1, 4, 0, 0, std::vector<double>{30.0, 0.0, 1.0, -2.0}), d(1, 4);
  const std::vector<int32_t> targets = {0};
  const std::vector<float> weight = {1.0f};
  CrossEntropy(logits.view(), {targets, weight, 0.0f, 1.0f}, d.view(), {});
  const double a = std::exp(-30.0), b = std::exp(-29.0), c = std::exp(-32.0);
  EXPECT_TRUE(Close(d.Floats(), std::vector<double>{-a - b - c, a, b, c}, 0, 1e-3));
}

TEST(CrossEntropy, ExtremeLogits) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    const double inf = std::numeric_limits<double>::infinity();
    PaddedMatrix<float> logits(1, 5, 0, 0, std::vector<double>{3e4, -3e4, -3e38, 2.99e4, 3e4}), d(1, 5);
    const std::vector<int32_t> targets = {1};
    const std::vector<float> weight = {1.0f};
    const CrossEntropySums sums = CrossEntropy(logits.view(), {targets, weight, 0.0f, 1.0f}, d.view(), {});
    EXPECT_NEAR(sums.loss, 6e4 + std::log(2.0), 1e-2);
    EXPECT_EQ(sums.max_logit, 3e4f);
    EXPECT_TRUE(Close(d.Floats(), std::vector<double>{0.5, -1, 0, 0, 0.5}, 1e-6, 0));
    for (const double broken : {std::nan(""), inf, -inf}) {
      logits.Set(std::vector<double>{1, 2, broken, 3, 4});
      EXPECT_TRUE(std::isnan(CrossEntropy(logits.view(), {targets, weight, 0.0f, 1.0f}, d.view(), {}).loss)) << broken;
    }
  });
}

TEST(CrossEntropy, UncountedTokensMayHaveNoTarget) {
  PaddedMatrix<float> logits(2, 20, 0, 0, RandomVector(40, 1)), d(2, 20);
  const std::vector<int32_t> targets = {-1, 3};
  const std::vector<float> weight = {0.0f, 1.0f};
  std::vector<float> nll(2);
  CrossEntropy(logits.view(), {targets, weight, 0.0f, 1.0f}, d.view(), nll);
  EXPECT_EQ(nll[0], 0.0f);
  const auto gradient = d.Floats();
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(gradient[i], 0.0f);
}

TEST(CrossEntropy, ReferenceGradientIsTheComplexStep) {
  const Batch b = MakeBatch(3, 6);
  const auto weight = ToDoubles(b.weight);
  const auto f = [&](const std::vector<std::complex<double>>& z) { return std::vector{CrossEntropyRef(z, b.targets, weight, 0.1)}; };
  EXPECT_TRUE(RelativeL2(CrossEntropyBackwardRef(b.logits, b.targets, weight, 0.1, 0.7), ComplexStepGradient(f, b.logits, std::vector{0.7}),
                         1e-12));
}

TEST(CrossEntropy, BitsDoNotDependOnThreads) {
  const int64_t rows = 131, n = 300;
  const Batch b = MakeBatch(rows, n);
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> logits(rows, n, 0, 0, b.logits);
    const CrossEntropySums sums = CrossEntropy(logits.view(), {b.targets, b.weight, kZ, kScale}, logits.view(), {});
    std::vector<float> all = logits.Floats();
    all.push_back(static_cast<float>(sums.loss));
    all.push_back(static_cast<float>((sums.loss - static_cast<double>(all.back())) * 1e7));
    return all;
  });
}

}  // namespace
}  // namespace fathom

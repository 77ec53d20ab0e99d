#include "fathom/kernels/head/sampling.h"

#include "fathom/kernels/head/sampling_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

const SamplingRule kRules[] = {
    {.strategy = SamplingStrategy::kGreedy},
    {.strategy = SamplingStrategy::kWeighted},
    {.strategy = SamplingStrategy::kWeighted, .temperature = 0.3},
    {.strategy = SamplingStrategy::kTopK, .temperature = 0.7, .top_k = 5},
    {.strategy = SamplingStrategy::kTopK, .temperature = 2, .top_k = 1 << 20},
    {.strategy = SamplingStrategy::kNucleus, .temperature = 0.7, .top_p = 0.9},
    {.strategy = SamplingStrategy::kNucleus, .temperature = 1.5, .top_p = 0.995},
    {.strategy = SamplingStrategy::kNucleus, .top_p = 0},
    {.strategy = SamplingStrategy::kNucleus, .top_p = 2},
    {.strategy = SamplingStrategy::kComposite, .temperature = 0.7, .top_k = 40, .top_p = 0.8},
    {.strategy = SamplingStrategy::kComposite, .temperature = 0, .top_k = 40, .top_p = 0.8},
};

std::vector<float> Distribution(const SamplingRule& rule, std::span<const float> logits) {
  std::vector<float> p(logits.size());
  Arena scratch = DirtyArena(1 << 22);
  SamplingDistribution(rule, logits, p, scratch);
  return p;
}

TEST(Sampling, DistributionsEqualReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t n : {1, 3, 8, 15, 16, 17, 33, 100, 1000, 4099}) {
      const auto logits = ToFloats(RandomVector(n, static_cast<uint64_t>(n), 2.0));
      for (const SamplingRule& rule : kRules) {
        SCOPED_TRACE(testing::Message() << n << " logits, strategy " << static_cast<int>(rule.strategy) << ", top_k " << rule.top_k
                                        << ", top_p " << rule.top_p);
        EXPECT_TRUE(Close(Distribution(rule, logits), SamplingDistributionRef(rule, logits), 1e-12, 1e-5));
      }
    }
  });
}

TEST(Sampling, TiesAndNonFiniteLogits) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {1, 3, -inf, 3, 2, std::nanf(""), 3};
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    EXPECT_EQ(ArgMax(logits), 1);
    EXPECT_EQ(ArgMax(std::vector<float>(20, -inf)), 0);
    EXPECT_EQ(ArgMax(std::vector<float>(40, 2.0f)), 0);
    const auto top2 = Distribution({.strategy = SamplingStrategy::kTopK, .top_k = 2}, logits);
    EXPECT_EQ(top2, (std::vector<float>{0, 0.5f, 0, 0.5f, 0, 0, 0}));
    const auto nucleus = Distribution({.strategy = SamplingStrategy::kNucleus, .top_p = 0.4}, logits);
    EXPECT_TRUE(Close(nucleus, std::vector<double>{0, 1.0 / 3, 0, 1.0 / 3, 0, 0, 1.0 / 3}, 1e-7, 0));
    EXPECT_EQ(Distribution({.strategy = SamplingStrategy::kWeighted}, logits)[5], 0.0f);
  });
}

TEST(Sampling, TheNucleusTellsNeighbouringFloatsApart) {
  const std::vector<float> logits = {std::nextafter(1.0f, 0.0f), 1.0f, -3.0f};
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    EXPECT_EQ(Distribution({.strategy = SamplingStrategy::kNucleus, .top_p = 0.4}, logits), (std::vector<float>{0, 1, 0}));
    EXPECT_EQ(Distribution({.strategy = SamplingStrategy::kNucleus, .top_p = 0.9}, logits)[2], 0.0f);
  });
}

TEST(Sampling, ArgMaxFindsTheFirstAnywhere) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t n : {1, 7, 16, 31, 100}) {
      for (int64_t at = 0; at < n; ++at) {
        std::vector<float> x(static_cast<size_t>(n), -5.0f);
        x[static_cast<size_t>(at)] = -1.0f;
        x.back() = -1.0f;
        EXPECT_EQ(ArgMax(x), at) << n;
      }
    }
  });
}

TEST(Sampling, DrawsFollowTheDistribution) {
  const std::vector<float> weights = {0, 0.5f, 0, 1.5f, 2.0f, 0};
  EXPECT_EQ(DrawIndex(weights, 0.0), 1);
  EXPECT_EQ(DrawIndex(weights, 0.1249), 1);
  EXPECT_EQ(DrawIndex(weights, 0.1251), 3);
  EXPECT_EQ(DrawIndex(weights, 0.4999), 3);
  EXPECT_EQ(DrawIndex(weights, 0.5001), 4);
  EXPECT_EQ(DrawIndex(weights, 0x1.fffffffffffffp-1), 4);
  EXPECT_EQ(DrawIndex(std::vector<float>(3, 0.0f), 0.5), -1);
  std::vector<int64_t> count(weights.size());
  const CounterRng rng(1, 2);
  const int64_t draws = 40000;
  for (uint64_t i = 0; i < draws; ++i) ++count[static_cast<size_t>(DrawIndex(weights, rng.Uniform(i)))];
  for (size_t i = 0; i < weights.size(); ++i) EXPECT_NEAR(static_cast<double>(count[i]) / draws, weights[i] / 4.0, 0.01);
}

}  // namespace
}  // namespace fathom

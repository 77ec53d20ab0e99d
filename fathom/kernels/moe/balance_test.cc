#include "fathom/kernels/moe/balance.h"

#include "fathom/kernels/moe/balance_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

std::vector<double> Scores(int64_t n, uint64_t seed) {
  std::vector<double> s = RandomVector(n, seed);
  for (double& v : s) v = static_cast<float>(1.0 / (1.0 + std::exp(-v)));
  return s;
}

std::vector<int32_t> Ids(int64_t n, int64_t experts, uint64_t seed) {
  const CounterRng rng(seed, 1);
  std::vector<int32_t> ids;
  for (uint64_t i = 0; i < static_cast<uint64_t>(n); ++i) ids.push_back(static_cast<int32_t>(rng.Below(i, static_cast<uint64_t>(experts))));
  return ids;
}

// Two sequences of 5 and 8 tokens; of the second the last three do not count.
void Check(BalanceForm form, int64_t experts, int64_t chosen, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << experts << " experts, form " << static_cast<int>(form));
  const int64_t tokens = 13;
  const float scale = 0.3f;
  PaddedMatrix<float> scores(tokens, experts, gap, shift, Scores(tokens * experts, 1)), d(tokens, experts, gap, 1);
  std::vector<int32_t> ids = Ids(tokens * chosen, experts, 2);
  ids[3] = -1;
  std::vector<float> weight(tokens, 1.0f);
  weight[10] = weight[11] = weight[12] = 0.0f;
  const std::vector<int64_t> begin = {0, 5, 13};
  Arena scratch = DirtyArena(1 << 20);
  const double loss = BalanceLoss(form, {scores.view(), chosen, ids, weight, begin}, scale, d.view(), scratch);
  const auto values = scores.Values();
  double want = 0;
  std::vector<double> gradient;
  for (const auto& [first, last] : {std::pair{0, 5}, std::pair{5, 10}}) {
    const std::vector<double> s(values.begin() + first * experts, values.begin() + last * experts);
    const std::vector<int32_t> i(ids.begin() + first * chosen, ids.begin() + last * chosen);
    want += BalanceLossRef(form, experts, s, i) / 2;
    for (const double g : BalanceGradientRef(form, experts, s, i)) gradient.push_back(g * scale / 2);
  }
  gradient.resize(static_cast<size_t>(tokens * experts), 0.0);
  EXPECT_NEAR(loss, want, 1e-6);
  EXPECT_TRUE(Close(d.Floats(), gradient, 1e-7, 1e-5));
  EXPECT_TRUE(d.PaddingUntouched());
}

TEST(Balance, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const BalanceForm form : {BalanceForm::kNormalizedScores, BalanceForm::kSoftmaxOfScores}) {
      for (const int64_t experts : {2, 3, 7, 8, 15, 16, 17, 64, 160, 256}) {
        Check(form, experts, 2, 0, 0);
        Check(form, experts, 1, 3, 1);
      }
    }
  });
}

TEST(Balance, ReferenceGradientIsTheComplexStep) {
  const int64_t experts = 5, chosen = 2, tokens = 4;
  const auto scores = Scores(tokens * experts, 3);
  const auto ids = Ids(tokens * chosen, experts, 4);
  for (const BalanceForm form : {BalanceForm::kNormalizedScores, BalanceForm::kSoftmaxOfScores}) {
    const auto f = [&](const std::vector<std::complex<double>>& z) { return std::vector{BalanceLossRef(form, experts, z, ids)}; };
    EXPECT_TRUE(RelativeL2(BalanceGradientRef(form, experts, scores, ids), ComplexStepGradient(f, scores, std::vector{1.0}), 1e-12));
  }
}

TEST(Balance, EqualLoadGivesOne) {
  const int64_t experts = 8, tokens = 4;
  PaddedMatrix<float> scores(tokens, experts, 0, 0, Scores(tokens * experts, 5)), d(tokens, experts);
  const std::vector<int32_t> ids = {0, 1, 2, 3, 4, 5, 6, 7};
  const std::vector<int64_t> begin = {0, tokens};
  Arena scratch = DirtyArena(1 << 16);
  for (const BalanceForm form : {BalanceForm::kNormalizedScores, BalanceForm::kSoftmaxOfScores}) {
    EXPECT_NEAR(BalanceLoss(form, {scores.view(), 2, ids, {}, begin}, 1.0f, d.view(), scratch), 1.0, 1e-6);
  }
}

TEST(Balance, BitsDoNotDependOnThreads) {
  const int64_t experts = 64, chosen = 6, tokens = 300;
  const auto ids = Ids(tokens * chosen, experts, 4);
  const std::vector<int64_t> begin = {0, 100, 300};
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> scores(tokens, experts, 0, 0, Scores(tokens * experts, 5)), d(tokens, experts);
    Arena scratch = DirtyArena(1 << 20);
    const double loss = BalanceLoss(BalanceForm::kSoftmaxOfScores, {scores.view(), chosen, ids, {}, begin}, 1.0f, d.view(), scratch);
    std::vector<float> all = d.Floats();
    all.push_back(static_cast<float>((loss - 1.0) * 1e6));
    return all;
  });
}

TEST(Balance, BiasMovesTowardsTheMean) {
  std::vector<int64_t> counts = {5, 0, 0, 0};
  const std::vector<int32_t> ids = {1, -1, 2, 2, 3, 3};
  const std::vector<float> weight = {1.0f, 1.0f, 0.0f};
  CountAssignments(ids, 2, weight, counts);
  EXPECT_EQ(counts, (std::vector<int64_t>{5, 1, 2, 0}));
  std::vector<float> bias = {0.1f, 0.1f, 0.1f, 0.1f};
  UpdateRouterBias(0.01f, counts, bias);
  EXPECT_TRUE(Close(bias, std::vector<double>{0.09, 0.11, 0.1, 0.11}, 1e-7, 0));
}

}  // namespace
}  // namespace fathom

#include "fathom/kernels/moe/router.h"

#include <cmath>
#include <set>

#include "fathom/kernels/moe/router_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

const RouterShape kShapes[] = {
    {.experts = 64, .chosen = 6},                                                 // V2-Lite
    {.experts = 160, .chosen = 6, .groups = 8, .kept_groups = 3, .scaling = 16},  // V2
    {.experts = 256,
     .chosen = 8,
     .groups = 8,
     .kept_groups = 4,
     .sigmoid = true,
     .group_top2 = true,
     .normalize = true,
     .scaling = 2.5f},  // V3
    {.experts = 16, .chosen = 4, .groups = 4, .kept_groups = 2, .sigmoid = true, .group_top2 = true, .normalize = true, .scaling = 2.5f},
    {.experts = 10, .chosen = 3, .normalize = true},
    {.experts = 6, .chosen = 1, .groups = 3, .kept_groups = 1, .sigmoid = true, .normalize = true, .scaling = 2},
    {.experts = 5, .chosen = 5, .sigmoid = true},
};

std::vector<double> Row(const std::vector<double>& m, int64_t row, int64_t n) { return {m.begin() + row * n, m.begin() + (row + 1) * n}; }

struct Routed {
  PaddedMatrix<float> scores;
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Routed Route(const RouterShape& shape, PaddedMatrix<float>& logits, std::span<const float> bias, int64_t tokens, int64_t gap,
             int64_t shift) {
  const auto slots = static_cast<size_t>(tokens * shape.chosen);
  Routed r{PaddedMatrix<float>(tokens, shape.experts, gap, shift), std::vector<int32_t>(slots), std::vector<float>(slots)};
  RouterForward(shape, logits.view(), bias, r.scores.view(), r.ids, r.weights);
  return r;
}

void CheckForward(const RouterShape& shape, bool biased, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << shape.experts << " experts, " << shape.groups << " groups, biased " << biased);
  const int64_t tokens = 9, experts = shape.experts, chosen = shape.chosen;
  PaddedMatrix<float> logits(tokens, experts, gap, shift, RandomVector(tokens * experts, 1, 2.0));
  const auto bias = biased ? RandomVector(experts, 2, 0.3) : std::vector<double>();
  Routed r = Route(shape, logits, ToFloats(bias), tokens, gap, shift);
  EXPECT_TRUE(r.scores.PaddingUntouched());
  std::vector<int32_t> again(r.ids.size());
  RouterChoice(shape, r.scores.view(), ToFloats(bias), again);
  EXPECT_EQ(again, r.ids);
  for (int64_t t = 0; t < tokens; ++t) {
    const auto scores = RouterScoresRef(shape, Row(logits.Values(), t, experts));
    const auto ids = RouterChoiceRef(shape, scores, bias);
    const auto want = RouterWeightsRef(shape, scores, ids);
    EXPECT_TRUE(Close(ToFloats(Row(r.scores.Values(), t, experts)), scores, 0, 1.5e-6));
    EXPECT_EQ(std::vector<int32_t>(r.ids.begin() + t * chosen, r.ids.begin() + (t + 1) * chosen), ids);
    EXPECT_TRUE(Close(std::vector<float>(r.weights.begin() + t * chosen, r.weights.begin() + (t + 1) * chosen), want, 0, 1.5e-6));
  }
}

void CheckBackward(const RouterShape& shape, bool balance, int64_t gap, int64_t shift) {
  SCOPED_TRACE(testing::Message() << shape.experts << " experts, balance " << balance);
  const int64_t tokens = 9, experts = shape.experts, chosen = shape.chosen;
  PaddedMatrix<float> logits(tokens, experts, gap, shift, RandomVector(tokens * experts, 1, 2.0)), dlogits(tokens, experts, gap, 1);
  PaddedMatrix<float> d_scores(tokens, experts, gap, 2, RandomVector(tokens * experts, 4));
  Routed r = Route(shape, logits, {}, tokens, gap, shift);
  const auto dweights = RandomVector(tokens * chosen, 3);
  RouterBackward(shape, r.scores.view(), r.ids, ToFloats(dweights), balance ? ConstView(d_scores.view()) : ConstView(), dlogits.view());
  EXPECT_TRUE(dlogits.PaddingUntouched());
  for (int64_t t = 0; t < tokens; ++t) {
    const std::vector<int32_t> ids(r.ids.begin() + t * chosen, r.ids.begin() + (t + 1) * chosen);
    const auto extra = balance ? Row(d_scores.Values(), t, experts) : std::vector<double>(static_cast<size_t>(experts));
    const auto want =
        RouterBackwardRef(shape, RouterScoresRef(shape, Row(logits.Values(), t, experts)), ids, Row(dweights, t, chosen), extra);
    const auto got = ToFloats(Row(dlogits.Values(), t, experts));
    const bool constant = shape.normalize && chosen == 1 && !balance;  // the weight is the scaling whatever the logits: no gradient
    EXPECT_TRUE(constant ? Close(got, want, 1e-6, 0) : RelativeL2(got, want, 1e-5));  // 1 - s of a chosen expert cancels
  }
}

TEST(Router, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const RouterShape& shape : kShapes) {
      CheckForward(shape, false, 0, 0);
      CheckForward(shape, true, 3, 1);
      CheckBackward(shape, false, 0, 0);
      CheckBackward(shape, true, 3, 1);
    }
  });
}

TEST(Router, TiesGoToTheLowerIndex) {
  const RouterShape shape = {.experts = 8, .chosen = 3, .groups = 4, .kept_groups = 2, .sigmoid = true, .group_top2 = true};
  PaddedMatrix<float> logits(3, 8, 0, 0, std::vector<double>{1, 1, 1, 1, 1, 1, 1, 1, 0, 2, 0, 0, 2, 0, 2, 0, 5, -5, 1, 1, 0, 0, 1, 1});
  const Routed r = Route(shape, logits, {}, 3, 0, 0);
  EXPECT_EQ(r.ids, (std::vector<int32_t>{0, 1, 2, 1, 4, 0, 2, 3, 6}));
}

TEST(Router, ScoresThatAreNoNumbersAreChosenLast) {
  const RouterShape shape = {.experts = 4, .chosen = 3, .sigmoid = true};
  PaddedMatrix<float> logits(1, 4, 0, 0, std::vector<double>{std::nan(""), 1, std::nan(""), 2});
  EXPECT_EQ(Route(shape, logits, {}, 1, 0, 0).ids, (std::vector<int32_t>{3, 1, 0}));
}

TEST(Router, ValuesThatAreNotFiniteReachTheWeights) {
  const RouterShape& shape = kShapes[3];
  const int64_t tokens = 3;
  const auto sound = RandomVector(tokens * shape.experts, 1);
  const auto weights = [&](double broken, std::vector<float> bias) {
    auto values = sound;
    values[static_cast<size_t>(shape.experts) + 2] = broken;  // of token 1
    PaddedMatrix<float> logits(tokens, shape.experts, 0, 0, values);
    return Route(shape, logits, bias, tokens, 0, 0).weights;
  };
  std::vector<float> bias(static_cast<size_t>(shape.experts), 0.1f);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double broken : {std::nan(""), kInfinity, -kInfinity}) {
    const auto got = weights(broken, bias);
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(std::isnan(got[i]), i / 4 == 1) << i;
    bias[5] = static_cast<float>(broken);
    for (const float w : weights(1, bias)) EXPECT_TRUE(std::isnan(w));
    bias[5] = 0.1f;
  }
}

TEST(Router, OneChosenSigmoidWeightIsNormalised) {
  const RouterShape shape = {.experts = 8, .chosen = 1, .sigmoid = true, .normalize = true, .scaling = 2.5f};
  PaddedMatrix<float> logits(4, 8, 0, 0, RandomVector(32, 3));
  for (const float w : Route(shape, logits, {}, 4, 0, 0).weights) EXPECT_FLOAT_EQ(w, 2.5f);
}

TEST(Router, ManyExpertsAndGroups) {
  CheckForward({.experts = kMaxExperts, .chosen = 9, .sigmoid = true, .normalize = true}, true, 0, 0);
  CheckForward({.experts = 512, .chosen = 5, .groups = 128, .kept_groups = 64, .sigmoid = true, .group_top2 = true}, true, 0, 0);
}

TEST(Router, ChoosesKDistinctExpertsAndSumsToScaling) {
  const RouterShape& v3 = kShapes[2];
  const int64_t tokens = 50;
  PaddedMatrix<float> logits(tokens, v3.experts, 0, 0, RandomVector(tokens * v3.experts, 7));
  const Routed r = Route(v3, logits, {}, tokens, 0, 0);
  for (int64_t t = 0; t < tokens; ++t) {
    const std::set<int32_t> ids(r.ids.begin() + t * 8, r.ids.begin() + (t + 1) * 8);
    std::set<int32_t> groups;
    for (const int32_t id : ids) groups.insert(id / 32);
    EXPECT_EQ(ids.size(), 8u);
    EXPECT_LE(groups.size(), 4u);
    double sum = 0;
    for (int64_t k = 0; k < 8; ++k) sum += r.weights[static_cast<size_t>(t * 8 + k)];
    EXPECT_NEAR(sum, 2.5, 1e-6);
  }
}

TEST(Router, ReferenceGradientIsTheComplexStep) {
  for (const RouterShape& shape : {kShapes[3], kShapes[4], kShapes[5], kShapes[6]}) {
    const auto logits = RandomVector(shape.experts, 1), dweights = RandomVector(shape.chosen, 2), extra = RandomVector(shape.experts, 3);
    const auto scores = RouterScoresRef(shape, logits);
    const auto ids = RouterChoiceRef(shape, scores, {});
    const auto f = [&](const std::vector<std::complex<double>>& z) {
      const auto s = RouterScoresRef(shape, z);
      auto out = RouterWeightsRef(shape, s, ids);
      out.insert(out.end(), s.begin(), s.end());
      return out;
    };
    std::vector<double> cotangent = dweights;
    cotangent.insert(cotangent.end(), extra.begin(), extra.end());
    EXPECT_TRUE(RelativeL2(RouterBackwardRef(shape, scores, ids, dweights, extra), ComplexStepGradient(f, logits, cotangent), 1e-11));
  }
}

TEST(Router, BitsDoNotDependOnThreads) {
  const RouterShape& shape = kShapes[1];
  const int64_t tokens = 70;
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> logits(tokens, shape.experts, 0, 0, RandomVector(tokens * shape.experts, 1));
    Routed r = Route(shape, logits, {}, tokens, 0, 0);
    RouterBackward(shape, r.scores.view(), r.ids, r.weights, ConstView(), logits.view());
    return logits.Floats();
  });
}

}  // namespace
}  // namespace fathom

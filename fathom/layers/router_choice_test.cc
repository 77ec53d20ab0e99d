#include "fathom/layers/router_choice.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fathom/layers/rope_table.h"

namespace fathom {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

TEST(RouterChoice, GroupScoresAndTheLargest) {
  const RouterShape top2{.experts = 6, .chosen = 2, .groups = 3, .kept_groups = 1, .group_top2 = true};
  const std::vector<float> choice = {1, 2, -3, 5, 4, kNaN};
  RouterShape largest = top2;
  largest.group_top2 = false;
  EXPECT_EQ(GroupScores(top2, std::span(choice).first(4)), (std::vector<float>{3, 2}));
  EXPECT_EQ(GroupScores(largest, std::span(choice).first(4)), (std::vector<float>{2, 5}));
  EXPECT_EQ(Largest(choice, 3), (std::vector<int32_t>{3, 4, 1}));
  EXPECT_EQ(Largest(std::vector<float>{1, 3, 3}, 2), (std::vector<int32_t>{1, 2})) << "ties to the lower index";
  EXPECT_EQ(Largest(choice, 6).back(), 5) << "NaN last";
}

// One token, four experts in two groups of which the second is kept: scores .5 .6 | .7 .8, all choice scores below 0 but for expert 3's.
struct OneToken {
  RouterShape shape{
      .experts = 4, .chosen = 2, .groups = 2, .kept_groups = 1, .sigmoid = true, .group_top2 = true, .normalize = true, .scaling = 2};
  std::vector<float> scores = {0.5F, 0.6F, 0.7F, 0.8F}, bias = {-1, -1, -0.9F, -0.5F}, weights = {0, 0};
  std::vector<int32_t> ids = {3, 2};

  void Apply(const LayerFaults& faults) {
    ApplyRoutingFaults(faults, shape, ViewOf(static_cast<const float*>(scores.data()), {1, 4}), bias, ids, weights);
  }
};

TEST(RoutingFaults, NoneChangesNothing) {
  OneToken token;
  token.Apply({});
  EXPECT_EQ(token.weights, (std::vector<float>{0, 0}));
  EXPECT_EQ(token.ids, (std::vector<int32_t>{3, 2}));
}

TEST(RoutingFaults, TheBiasCountsInTheWeights) {
  OneToken token;
  token.Apply({.bias_in_weights = true});
  EXPECT_EQ(token.ids, (std::vector<int32_t>{3, 2}));
  EXPECT_NEAR(token.weights[0], 2 * 0.3 / 0.1, 1e-4);
  EXPECT_NEAR(token.weights[1], 2 * -0.2 / 0.1, 1e-4);
}

TEST(RoutingFaults, AMaskOfZeroLetsLeftOutExpertsIn) {
  OneToken token;
  token.Apply({.group_mask_zero = true});
  EXPECT_EQ(token.ids, (std::vector<int32_t>{3, 0})) << "0 is more than expert 2's -0.2";
  EXPECT_NEAR(token.weights[0], 2 * 0.8 / 1.3, 1e-6);
  EXPECT_NEAR(token.weights[1], 2 * 0.5 / 1.3, 1e-6);
}

TEST(RotaryFaults, LeaveOutYarnsPartOnly) {
  ModelConfig c;
  c.qk_nope_head_dim = 12;
  c.qk_rope_head_dim = 4;
  c.rope_scaling = RopeScaling{.factor = 40, .mscale = 0.7, .mscale_all_dim = 1};
  EXPECT_EQ(SoftmaxScale(c, {.plain_softmax_scale = true}), 0.25);
  EXPECT_GT(SoftmaxScale(c), 0.25);
  const RopeTable plain(c, 8, {.plain_frequencies = true}), yarn(c, 8);
  const double scale = RopeTableScale(c);
  ASSERT_NE(scale, 1);
  EXPECT_NEAR(plain.cos.view().row<float>(7)[1], scale * std::cos(7 * 0.01), 1e-6);
  EXPECT_GT(std::fabs(plain.cos.view().row<float>(7)[1] - yarn.cos.view().row<float>(7)[1]), 1e-4);
}

}  // namespace
}  // namespace fathom

// The indexer as a layer: what it chooses against one written out in double, and the official code's rounding.
#include "fathom/layers/indexer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "fathom/kernels/quant/fp8_quantize.h"
#include "fathom/kernels/quant/hadamard_ref.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr int64_t kTokens = 40, kHidden = 20, kRank = 12, kHeads = 14, kDim = 16, kRope = 6, kTopK = 9;

using Rows = std::vector<std::vector<double>>;

ModelConfig Config() {
  ModelConfig c;
  c.qk_rope_head_dim = kRope;
  c.index_n_heads = kHeads;
  c.index_head_dim = kDim;
  c.index_topk = kTopK;
  return c;
}

// y = x w^T, row by row.
Rows Product(const Tensor& x, const Tensor& w) {
  Rows y;
  for (int64_t t = 0; t < x.dim(0); ++t) {
    y.emplace_back();
    for (int64_t n = 0; n < w.dim(0); ++n) {
      double sum = 0;
      for (int64_t k = 0; k < w.dim(1); ++k)
        sum += static_cast<double>(x.data<float>()[t * x.dim(1) + k]) * w.data<float>()[n * w.dim(1) + k];
      y.back().push_back(sum);
    }
  }
  return y;
}

// The first kRope elements of a head, pairs of halves.
void Rotate(double* head, int64_t position) {
  for (int64_t i = 0; i < kRope / 2; ++i) {
    const double angle = static_cast<double>(position) * std::pow(10000.0, -2.0 * static_cast<double>(i) / kRope);
    const double a = head[i], b = head[i + kRope / 2];
    head[i] = a * std::cos(angle) - b * std::sin(angle);
    head[i + kRope / 2] = b * std::cos(angle) + a * std::sin(angle);
  }
}

// Rotated by the Hadamard matrix, rounded to FP8 with one power of two per head.
void RoundAsOfficial(std::vector<double>& row) {
  const auto rotated = HadamardRotateRef(row, kDim);
  PaddedMatrix<float> heads(std::ssize(row) / kDim, kDim, 0, 0, rotated);
  RoundToFp8(heads.view(), Fp8Tile::k1x128, ScaleFormat::kUe8m0, heads.view());
  row = heads.Values();
}

class IndexerTest : public testing::TestWithParam<bool> {
 protected:
  IndexerTest() : rope_(Config(), kTokens), indexer_(Config(), {.indexer_fp8 = GetParam()}) {
    p_.wq_b.value = RandomTensor({kHeads * kDim, kRank}, 3);
    p_.wk.value = RandomTensor({kDim, kHidden}, 4);
    p_.k_norm.value = RandomTensor({kDim}, 5);
    p_.k_norm_bias.value = RandomTensor({kDim}, 6);
    p_.weights_proj.value = RandomTensor({kHeads, kHidden}, 7);
    std::iota(positions_.begin(), positions_.end(), 0);
  }

  Rows ExpectedKeys() const {
    Rows keys = Product(x_, p_.wk.value);
    for (int64_t t = 0; t < kTokens; ++t) {
      auto& k = keys[static_cast<size_t>(t)];
      const double mean = std::accumulate(k.begin(), k.end(), 0.0) / kDim;
      double variance = 0;
      for (const double v : k) variance += (v - mean) * (v - mean) / kDim;
      for (size_t i = 0; i < k.size(); ++i) {
        k[i] = (k[i] - mean) / std::sqrt(variance + 1e-6) * p_.k_norm.value.data<float>()[i] + p_.k_norm_bias.value.data<float>()[i];
      }
      Rotate(k.data(), t);
      if (GetParam()) RoundAsOfficial(k);
    }
    return keys;
  }

  // [T][t+1] scores of what each token sees.
  Rows ExpectedScores() const {
    Rows q = Product(q_low_, p_.wq_b.value), scores;
    const Rows weights = Product(x_, p_.weights_proj.value), keys = ExpectedKeys();
    for (size_t t = 0; t < q.size(); ++t) {
      for (int64_t h = 0; h < kHeads; ++h) Rotate(q[t].data() + h * kDim, static_cast<int64_t>(t));
      if (GetParam()) RoundAsOfficial(q[t]);
      scores.emplace_back();
      for (size_t s = 0; s <= t; ++s) {
        double score = 0;
        for (size_t h = 0; h < kHeads; ++h) {
          score += weights[t][h] / std::sqrt(kHeads * kDim) *
                   std::max(0.0, std::inner_product(keys[s].begin(), keys[s].end(), q[t].begin() + static_cast<int64_t>(h) * kDim, 0.0));
        }
        scores.back().push_back(score);
      }
    }
    return scores;
  }

  IndexerParams p_;
  Tensor x_ = RandomTensor({kTokens, kHidden}, 1), q_low_ = RandomTensor({kTokens, kRank}, 2);
  std::vector<int32_t> positions_ = std::vector<int32_t>(kTokens);
  RopeTable rope_;
  Indexer indexer_;
  Arena saved_{1 << 20}, scratch_{1 << 26};
};

TEST_P(IndexerTest, KeysAndChoiceAreThoseWrittenOut) {
  Ctx ctx{saved_, scratch_, DType::kF32};
  const Indexer::Inputs in{x_, q_low_, positions_, rope_};
  Tensor k(DType::kF32, {kTokens, kDim});
  indexer_.Keys(ctx, p_, in, k.mutable_view());
  std::vector<double> keys;
  for (const auto& row : ExpectedKeys()) keys.insert(keys.end(), row.begin(), row.end());
  // A value next to the middle of two codes may go either way.
  EXPECT_TRUE(RelativeL2(std::span(k.data<float>(), keys.size()), keys, GetParam() ? 5e-3 : 1e-5));

  std::vector<int32_t> chosen(kTokens * kTopK);
  const Segment all{0, kTokens, 0, kTokens};
  indexer_.Choose(ctx, p_, in, {&all, 1}, k, chosen);
  const Rows scores = ExpectedScores();
  int64_t compared = 0;
  for (size_t t = kTopK; t < kTokens; ++t) {
    auto order = scores[t];
    std::ranges::sort(order, std::greater<>());
    if (order[kTopK - 1] - order[kTopK] < (GetParam() ? 0.1 : 1e-3)) continue;  // too near to call
    std::vector<int32_t> want;
    for (size_t s = 0; s <= t; ++s) {
      if (scores[t][s] >= order[kTopK - 1]) want.push_back(static_cast<int32_t>(s));
    }
    EXPECT_EQ(
        std::vector<int32_t>(chosen.begin() + static_cast<int64_t>(t * kTopK), chosen.begin() + static_cast<int64_t>((t + 1) * kTopK)),
        want)
        << t;
    ++compared;
  }
  EXPECT_GT(compared, 15);
}

TEST_P(IndexerTest, OneNaNInAnyParameterMakesTheChoiceNone) {
  Ctx ctx{saved_, scratch_, DType::kF32};
  const Indexer::Inputs in{x_, q_low_, positions_, rope_};
  const Segment all{0, kTokens, 0, kTokens};
  std::vector<int32_t> chosen(kTokens * kTopK);
  const auto choose = [&] {
    Tensor k(DType::kF32, {kTokens, kDim});
    indexer_.Keys(ctx, p_, in, k.mutable_view());
    return indexer_.Choose(ctx, p_, in, {&all, 1}, k, chosen);
  };
  EXPECT_TRUE(choose());
  for (Weight* w : {&p_.wq_b, &p_.wk, &p_.k_norm, &p_.k_norm_bias, &p_.weights_proj}) {
    float& value = w->value.mutable_data<float>()[3];
    const float good = std::exchange(value, std::numeric_limits<float>::quiet_NaN());
    EXPECT_FALSE(choose());
    value = good;
  }
}

INSTANTIATE_TEST_SUITE_P(Rounding, IndexerTest, testing::Bool(), [](const auto& test) { return test.param ? "Official" : "None"; });

// Between the queries whose scores are compared lie many that choose all they see.
TEST_P(IndexerTest, DocumentsChooseAsTheyDoAlone) {
  constexpr int64_t kEach = 410;
  ModelConfig c = Config();
  c.index_topk = 400;
  const Indexer indexer(c, {.indexer_fp8 = GetParam()});
  const Tensor x = RandomTensor({2 * kEach, kHidden}, 8), q_low = RandomTensor({2 * kEach, kRank}, 9);
  std::vector<int32_t> positions(2 * kEach);
  for (int64_t document : {0, 1}) std::iota(positions.begin() + document * kEach, positions.begin() + (document + 1) * kEach, 0);
  const RopeTable rope(c, kEach);
  Ctx ctx{saved_, scratch_, DType::kF32};
  const Indexer::Inputs in{x, q_low, positions, rope};
  Tensor k(DType::kF32, {2 * kEach, kDim});
  indexer.Keys(ctx, p_, in, k.mutable_view());
  const std::vector<Segment> segments{{0, kEach, 0, kEach}, {kEach, 2 * kEach, kEach, 2 * kEach}};
  std::vector<int32_t> together(static_cast<size_t>(2 * kEach * c.index_topk)), alone(together.size() / 2);
  EXPECT_TRUE(indexer.Choose(ctx, p_, in, segments, k, together));
  for (const Segment& s : segments) {
    EXPECT_TRUE(indexer.Choose(ctx, p_, in.Rows(s.q_begin, s.q_end), {segments.data(), 1}, k.view().Rows(s.k_begin, s.k_end), alone));
    for (int32_t& row : alone) row += row < 0 ? 0 : static_cast<int32_t>(s.k_begin);
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + s.q_begin * c.index_topk));
  }
}

TEST(Indexer, RefusesToRotateOtherSizes) {
  ModelConfig c = Config();
  c.index_head_dim = 12;
  EXPECT_THROW(Indexer(c, {.indexer_fp8 = true}), Error);
  EXPECT_NO_THROW(Indexer(c, {}));
}

}  // namespace
}  // namespace fathom

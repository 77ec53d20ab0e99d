#include "fathom/train/flops.h"

#include <gtest/gtest.h>

#include "fathom/model/tiny_config.h"

namespace fathom {
namespace {

TrainOptions Options(float factor = 0, bool sparse = false) {
  TrainOptions o;
  o.length = 12;
  o.indexer.factor = factor;
  o.indexer.sparse = sparse;
  o.indexer.dense_attention = factor > 0 && !sparse;
  o.lm_loss = !o.indexer.dense_attention;
  return o;
}

// Two layers, 12 tokens of which 6 are seen on average, of 6 chosen ones 4.5; 2 heads of 14 / 10, so that a pair costs 96 and its score 56;
// the indexer's 14 heads of 8 on a width of 24 and a query rank of 16.
constexpr double kProjections = 2 * (16 * 112 + 24 * 8 + 24 * 14), kScore = 2 * 14 * (8 + 1);

class TrainFlops : public testing::Test {
 protected:
  TrainFlops() { dense_.index_topk = 12; }
  double Of(const ModelConfig& model, const TrainOptions& options = Options()) const { return TrainFlopsPerToken(model, options); }
  ModelConfig sparse_ = TinyConfig(ModelFamily::kV32, 41), dense_ = sparse_;
};

TEST_F(TrainFlops, SparseAttentionIsOfTheChosenKeysAndAsksTheIndexer) {
  EXPECT_DOUBLE_EQ(Of(sparse_) - Of(dense_), 2 * (kProjections + 6 * kScore) - 3 * 2 * (6 - 4.5) * 96);
  EXPECT_DOUBLE_EQ(Of(dense_), Of(TinyConfig(ModelFamily::kV3, 41)));
}

// Attention itself has no weights: its backward stays.
TEST_F(TrainFlops, AdaptersLeaveTheGradientsOfTheWeightsOut) {
  TrainOptions lora = Options();
  lora.lora.enabled = true;
  const double pairs = 2 * 6 * 96;
  EXPECT_DOUBLE_EQ(Of(dense_, lora), (Of(dense_) - 3 * pairs) * 2 / 3 + 3 * pairs);
}

// A mask leaves one product of three out of each matrix that it freezes: the head (24 x 41), then the experts of the second layer, of
// whose four a token meets two.
TEST_F(TrainFlops, FrozenMatricesHaveNoGradientOfTheirOwn) {
  TrainOptions masked = Options();
  masked.trainable_mask = {"^model[.]"};
  EXPECT_DOUBLE_EQ(Of(dense_) - Of(dense_, masked), 2 * 24 * 41);
  masked.trainable_mask = {"^model.*(norm|proj|mqa|gate)[.]weight", "lm_head"};
  EXPECT_DOUBLE_EQ(Of(dense_, masked), Of(dense_)) << "embeddings are looked up";
  masked.trainable_mask = {"self_attn", "layers.0", "shared", "gate.weight", "lm_head"};
  EXPECT_DOUBLE_EQ(Of(dense_) - Of(dense_, masked), 2 * 2 * 3 * 24 * 20);
  masked.norm_of_masked = true;  // computed for the clipping norm all the same
  EXPECT_DOUBLE_EQ(Of(dense_, masked), Of(dense_));
}

// The second layer has four experts, of which a token meets two.
TEST_F(TrainFlops, EveryExpertRunsWhereTheStrategySaysSo) {
  TrainOptions options = Options();
  EXPECT_DOUBLE_EQ(RunFlopsPerToken(dense_, options), Of(dense_));
  options.layers.experts.kind = ExpertRun::kDense;
  EXPECT_DOUBLE_EQ(RunFlopsPerToken(dense_, options) - Of(dense_, options), 3 * 2 * 2 * 3 * 24 * 20);
}

TEST_F(TrainFlops, WarmUpIsOneForwardAndTheIndexersLoss) {
  const double head = 2 * 24 * 41, forward = Of(dense_) / 3 - head;
  EXPECT_DOUBLE_EQ(Of(sparse_, Options(0.1f)), forward + 2 * (2 * kProjections + 6 * (56 + 3 * kScore)));
}

TEST_F(TrainFlops, SparseTrainingHasTheIndexersLossBesides) {
  EXPECT_DOUBLE_EQ(Of(sparse_, Options(0.1f, true)) - Of(sparse_), 2 * (kProjections + 4.5 * (56 + 2 * kScore)));
}

}  // namespace
}  // namespace fathom

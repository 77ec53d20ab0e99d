#include "fathom/eval/compare_runs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "fathom/checkpoint/check/compare_parameters.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/eval/exact_forward.h"
#include "fathom/eval/forward.h"
#include "fathom/eval/golden_arrays.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

class CompareRunsTest : public testing::Test {
 protected:
  explicit CompareRunsTest(const std::string& name = "v3")
      : a_(Checkpoint::Open(fs::path(FATHOM_TEST_DATA) / "golden" / name)), config_(a_.config().raw) {
    for (const std::string& tensor : a_.names()) {
      const Tensor from = a_.Get(tensor);
      tensors_.push_back({tensor, Tensor(from.dtype(), from.shape())});
      std::memcpy(tensors_.back().tensor.mutable_view().raw(), from.view().raw(), static_cast<size_t>(from.NumBytes()));
    }
    for (int32_t i = 0; i < 30; ++i) ids_.push_back(5 + i * 11 % 59);
  }
  float* Of(const std::string& name) { return FindTensor(tensors_, name).tensor.mutable_data<float>(); }
  RunDifferences Compare(int64_t from) {
    WriteCheckpoint(folder_.path() / "b", config_, tensors_);
    int64_t calls = 0;
    RunDifferences d = CompareRuns(a_, Checkpoint::Open(folder_.path() / "b"), DType::kF32, ids_, from,
                                   [&](int64_t layers) { EXPECT_EQ(layers, ++calls); });
    EXPECT_GT(calls, 0);
    return d;
  }

  Checkpoint a_;
  Json config_;
  std::vector<TestTensor> tensors_;
  std::vector<int32_t> ids_;
  TemporaryFolder folder_;
};

TEST_F(CompareRunsTest, NothingWhereNothingDiffers) {
  const RunDifferences d = Compare(0);
  EXPECT_FALSE(d.first);
  EXPECT_FALSE(d.choice);
}

// Layer 1 turned up: its own output is the first to differ, from the first token on, whether the layer below ran twice or once.
TEST_F(CompareRunsTest, TheLayerThatDiffers) {
  FindTensor(tensors_, "model.layers.1.self_attn.o_proj.weight").tensor.mutable_data<float>()[0] += 1;
  for (const int64_t from : {0, 1}) {
    const RunDifferences d = Compare(from);
    ASSERT_TRUE(d.first);
    EXPECT_EQ(d.first->layer, 1);
    EXPECT_EQ(d.first->token, 0);
  }
}

// A token's embedding: from where the token first stands.
TEST_F(CompareRunsTest, TheTokenThatDiffers) {
  float* row = FindTensor(tensors_, "model.embed_tokens.weight").tensor.mutable_data<float>() + ids_[7] * a_.config().hidden_size;
  row[3] += 1;
  const RunDifferences d = Compare(0);
  ASSERT_TRUE(d.first);
  EXPECT_EQ(d.first->layer, 0);
  EXPECT_EQ(d.first->token, 7);
}

TEST_F(CompareRunsTest, BelowTheToleranceIsTheSame) {
  Of("model.layers.1.input_layernorm.weight")[0] += 1e-7F;
  EXPECT_FALSE(Compare(1).first);
}

// One expert becomes every token's first choice, in its own group or in one that was left out.
TEST_F(CompareRunsTest, TheRoutersChoiceWithScores) {
  const std::string name = "model.layers.1.mlp.gate.e_score_correction_bias";
  Of(name)[3] += 4;
  const RunDifferences d = Compare(1);
  ASSERT_TRUE(d.choice);
  EXPECT_EQ(d.choice->layer, 1);
  EXPECT_TRUE(d.choice->kind == "router" || d.choice->kind == "group") << d.choice->kind;
  EXPECT_EQ(d.choice->a.size(), 2u);
  EXPECT_EQ(d.choice->b.size(), d.choice->a.size());
  const int32_t wanted = d.choice->kind == "router" ? 3 : 1;  // two experts in each group
  const auto chosen = std::ranges::find(d.choice->b, wanted, &ScoredChoice::id);
  ASSERT_NE(chosen, d.choice->b.end());
  EXPECT_GT(chosen->score, 3);
}

// One group is lost: the choice among groups is what differs.
TEST_F(CompareRunsTest, TheGroupsAreWhy) {
  config_["topk_group"] = 1;
  const RunDifferences d = Compare(0);
  ASSERT_TRUE(d.choice);
  EXPECT_EQ(d.choice->kind, "group");
  EXPECT_EQ(d.choice->a.size(), 2u);
  EXPECT_EQ(d.choice->b.size(), 1u);
  EXPECT_EQ(d.choice->layer, 1);
}

class CompareIndexersTest : public CompareRunsTest {
 protected:
  CompareIndexersTest() : CompareRunsTest("v32-indexer-training") {}
};

TEST_F(CompareIndexersTest, TheFirstQueryThatSeesOneKeyMore) {
  const int64_t k = a_.config().index_topk;
  config_["index_topk"] = k + 1;
  const RunDifferences d = Compare(0);
  ASSERT_TRUE(d.choice);
  EXPECT_EQ(d.choice->kind, "indexer");
  EXPECT_EQ(d.choice->layer, 0);
  EXPECT_EQ(d.choice->token, k) << "the first that sees more than index_topk keys";
  EXPECT_EQ(std::ssize(d.choice->a), k);
  EXPECT_EQ(std::ssize(d.choice->b), k + 1);
  // The key that one side leaves out has the lowest score of all.
  float lowest = d.choice->a[0].score;
  for (const ScoredChoice& c : d.choice->a) lowest = std::min(lowest, c.score);
  for (const ScoredChoice& c : d.choice->b) {
    const auto same = std::ranges::find(d.choice->a, c.id, &ScoredChoice::id);
    if (same == d.choice->a.end()) {
      EXPECT_LE(c.score, lowest);
    } else {
      EXPECT_EQ(c.score, same->score);
    }
  }
}

class ExactForwardTest : public testing::TestWithParam<const char*> {};

// The golden values are in double, too: what is left is the softmax scale, which kernels and references hold in f32.
TEST_P(ExactForwardTest, IsTheGoldenStream) {
  const GoldenCase golden(Checkpoint::Open(fs::path(FATHOM_TEST_DATA) / "golden" / GetParam()));
  const auto length = static_cast<size_t>(golden.ShapeOf("short_ids")[1]);
  const std::vector<int32_t> ids = golden.Ids("short_ids");
  ExactForward exact(golden.checkpoint, std::span(ids).first(length));
  for (int64_t i = 0; i <= golden.checkpoint.config().num_hidden_layers; ++i) {
    if (i > 0) exact.Step(i - 1);
    const std::vector<double> truth = Doubles(golden.Expected(golden.prefix + "short_hidden." + std::to_string(i)));
    double worst = 0, largest = 0;
    for (size_t j = 0; j < exact.stream().size(); ++j) {
      largest = std::max(largest, std::fabs(truth[j]));
      const double error = std::fabs(exact.stream()[j] - truth[j]);
      if (!(error <= worst)) worst = error;
    }
    EXPECT_TRUE(worst <= 3e-7 * largest) << i << ": " << worst;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ExactForwardTest, testing::Values("v2-lite", "v2", "v3", "v32-fp8"));

// With more keys than index_topk the indexer chooses in double as in f32: the layers agree to f32's rounding.
TEST_F(CompareIndexersTest, TheExactStreamIsTheEngines) {
  ExactForward exact(a_, ids_);
  ForwardModel model(a_, DType::kF32);
  std::vector<int32_t> positions(ids_.size());
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i);
  const Segment all{0, std::ssize(ids_), 0, std::ssize(ids_)};
  model.Logits(ids_, {positions, {&all, 1}}, [&](int64_t layer, ConstView h, const Block::Saved&) {
    if (layer >= 0) exact.Step(layer);
    for (int64_t i = 0; i < h.NumElements(); ++i) {
      const double x = exact.stream()[static_cast<size_t>(i)];
      ASSERT_TRUE(std::fabs(h.data<float>()[i] - x) <= 1e-5 * (1 + std::fabs(x))) << layer << ": " << i;
    }
  });
}

// Mapped pages of files that lie in memory, of the whole process.
int64_t MappedBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssFile:")) return std::stoll(line.substr(8)) * 1024;
  }
  return 0;
}

// Two checkpoints of eight layers, 15 MB each: no more than two layers of each are held at a time, by values or by running.
TEST(CompareLargeTest, LayersAreLetGoOf) {
  Json config = TinyConfig();
  config.update({{"num_hidden_layers", 8}, {"first_k_dense_replace", 8}, {"hidden_size", 256}, {"intermediate_size", 600}});
  config.update({{"num_nextn_predict_layers", 0}});
  std::vector<TestTensor> tensors = TinyTensors(ParseJson(config.dump(), "test"));
  TemporaryFolder folder;
  WriteCheckpoint(folder.path() / "a", config, tensors);
  FindTensor(tensors, "model.layers.0.mlp.up_proj.weight").tensor.mutable_data<float>()[0] += 1;
  WriteCheckpoint(folder.path() / "b", config, tensors);
  int64_t most = 0, bytes = 0;
  const auto watch = [&](int64_t) { most = std::max(most, MappedBytes()); };
  const auto compare_both = [&] {
    const Checkpoint a = Checkpoint::Open(folder.path() / "a"), b = Checkpoint::Open(folder.path() / "b");
    bytes = a.NumBytes();
    EXPECT_EQ(CompareParameters(a, b, watch).size(), 1u);
    CompareRuns(a, b, DType::kBF16, std::vector<int32_t>{1, 2, 3}, 0, watch);
  };
  compare_both();  // the program's own pages come in
  const int64_t before = most = MappedBytes();
  compare_both();
  EXPECT_LE(most - before, bytes / 2);
}

}  // namespace
}  // namespace fathom

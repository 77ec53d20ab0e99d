// A value that is not finite in any kind of parameter that an answer depends on: decoding, checks, evaluation and training each say so.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/eval/logits.h"
#include "fathom/eval/perplexity.h"
#include "fathom/infer/generate.h"
#include "fathom/testing/folder.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

constexpr int64_t kTokens = 16;

std::vector<int32_t> Ids(int64_t n) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(i % 24));
  return ids;
}

class BrokenValues : public testing::TestWithParam<std::tuple<const char*, float>> {
 protected:
  BrokenValues() : config_(TinyConfig(std::get<0>(GetParam()))) { SetThreads(1); }
  ~BrokenValues() override { SetThreads(0); }

  // One value of every tensor of this role: of each expert, as which of them a token chooses is the router's to say.
  void Break(ParamRole role, bool mtp) {
    auto tensors = TinyTensors(config_);
    const ModelSpec spec(ParseModelConfig(config_, "test"));
    for (const ParamSpec& param : spec) {
      if (param.role != role || param.is_mtp() != mtp) continue;
      Tensor& tensor = FindTensor(tensors, param.name).tensor;
      tensor.mutable_data<float>()[tensor.NumElements() / 2] = std::get<1>(GetParam());
    }
    WriteCheckpoint(folder_.path(), config_, tensors);
  }
  std::set<ParamRole> Roles(bool mtp) const {
    std::set<ParamRole> roles;
    for (const ParamSpec& param : ModelSpec(ParseModelConfig(config_, "test"))) {
      if (param.is_mtp() == mtp) roles.insert(param.role);
    }
    return roles;
  }

  std::string DecodeError() const {
    const MappedModel model(Checkpoint::Open(folder_.path()), DType::kF32, 2 * kTokens);
    Engine engine(model, 1);
    GenerateOptions options;
    options.max_new_tokens = 2;
    options.ignore_eos = true;
    try {
      Generate(engine, nullptr, Ids(kTokens), options, {});
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  bool EvaluatesToANumber() const {
    ForwardModel model(Checkpoint::Open(folder_.path()), DType::kF32);
    PerplexityMeter meter(model, {kTokens, kTokens, {}});
    meter.Add(Ids(kTokens), 10, 10);
    return std::isfinite(meter.Finish().NllPerToken());
  }
  bool PassesACheck() const {
    ForwardModel model(Checkpoint::Open(folder_.path()), DType::kF32);
    const Tensor logits = model.Logits(Ids(kTokens));
    std::vector<std::vector<double>> found;
    for (int64_t t = 0; t < logits.dim(0); ++t) {
      const float* row = logits.data<float>() + t * logits.dim(1);
      found.emplace_back(row, row + logits.dim(1));
    }
    const LogitBars bars{.max_kl_div = 1e9};
    return CompareLogits(std::vector(found.size(), std::vector<double>(static_cast<size_t>(logits.dim(1)), 0.0)), found, bars).Passes(bars);
  }
  bool Trains(std::vector<std::string> flags) const {
    flags.insert(flags.end(),
                 {"steps=1", "dtype=float32", "max_target_length=16", "per_device_batch_size=1", "base_output_directory=unused"});
    const RunConfig config = RunConfig::Resolve(flags);
    const TrainOptions options = ReadTrainOptions(config);
    LoadedModel model = LoadModel(config, options, folder_.path());
    TrainSession session(model.config, options, std::move(model.params));
    Batch batch;
    batch.Clear(1, kTokens);
    const auto ids = Ids(kTokens + 1);
    batch.AddSegment(0, kTokens, ids.data(), ids.data() + 1, 1);
    const StepReport report = session.Step(batch, 0.01);
    return std::isfinite(report.loss) && report.optimizer.applied;
  }

  Json config_;
  TemporaryFolder folder_;
};

TEST_P(BrokenValues, NoCommandIsSilent) {
  WriteCheckpoint(folder_.path(), config_, TinyTensors(config_));
  ASSERT_TRUE(DecodeError().empty() && EvaluatesToANumber() && PassesACheck() && Trains({}));
  for (const ParamRole role : Roles(false)) {
    const std::string name(FactsOf(role).hub);
    Break(role, false);
    EXPECT_NE(DecodeError().find("not finite"), std::string::npos) << name;
    EXPECT_FALSE(EvaluatesToANumber()) << name;
    EXPECT_FALSE(PassesACheck()) << name;
    EXPECT_FALSE(Trains({})) << name;
  }
}

// Nothing but training and drafting reads an MTP module, and what it drafts is checked.
TEST_P(BrokenValues, AModuleThatIsTrainedSaysSo) {
  for (const ParamRole role : Roles(true)) {
    Break(role, true);
    const bool copy = CopyOf(role).has_value();  // shared: the main model's takes its place
    EXPECT_EQ(Trains({"mtp_num_layers=1"}), copy) << FactsOf(role).hub;
  }
}

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
INSTANTIATE_TEST_SUITE_P(Families, BrokenValues,
                         testing::Values(std::tuple("deepseek_v2", kNaN), std::tuple("deepseek_v3", kNaN), std::tuple("deepseek_v32", kNaN),
                                         std::tuple("deepseek_v3", kInf), std::tuple("deepseek_v32", -kInf)));

}  // namespace
}  // namespace fathom

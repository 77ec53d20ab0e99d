// What an optimizer remembers, and how far a batch has grown, goes on in a resumed run; a state is not taken for another optimizer's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/convert/convert.h"
#include "fathom/checkpoint/hub/checkpoint.h"
#include "fathom/testing/folder.h"
#include "fathom/train/loop.h"

namespace fathom {
namespace {

using testing::HasSubstr;

class OptimizerState : public testing::Test {
 protected:
  void Train(const std::string& name, int64_t steps, std::vector<std::string> flags) const {
    if (std::ranges::none_of(flags, [](const std::string& f) { return f.starts_with("per_device_batch_size="); }))
      flags.push_back("per_device_batch_size=1");
    if (std::ranges::none_of(flags, [](const std::string& f) { return f.starts_with("dtype="); })) flags.push_back("dtype=float32");
    flags.insert(flags.end(),
                 {"load_parameters_path=" + (std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v3").string(), "dataset_type=synthetic",
                  "max_target_length=16", "learning_rate=0.01", "learning_rate_schedule_steps=9", "warmup_steps_fraction=0",
                  "run_name=" + name, "steps=" + std::to_string(steps), "base_output_directory=" + folder_.path().string()});
    EXPECT_EQ(RunTraining(RunConfig::Resolve(flags)), 0);
  }
  std::filesystem::path Step(const std::string& name, int64_t step) const {
    return folder_.path() / name / "checkpoints" / std::to_string(step);
  }
  void ExpectSameWeights(const std::filesystem::path& a, const std::filesystem::path& b) const {
    const Checkpoint x = Checkpoint::Open(a), y = Checkpoint::Open(b);
    for (const std::string& name : x.names()) {
      const Tensor p = x.Get(name), q = y.Get(name);
      EXPECT_EQ(std::memcmp(p.view().raw(), q.view().raw(), static_cast<size_t>(p.NumBytes())), 0) << name;
    }
  }
  std::string ErrorOf(const std::function<void()>& f) const {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  TemporaryFolder folder_;
};

TEST_F(OptimizerState, MuonGoesOnWithTheSameBits) {
  const std::vector<std::string> flags = {"opt_type=muon", "skip_step_on_spikes=true", "skip_step_interval=4", "mu_dtype=bfloat16"};
  Train("whole", 4, flags);
  Train("twice", 2, flags);
  Train("twice", 4, flags);
  ExpectSameWeights(Step("whole", 3), Step("twice", 3));
  EXPECT_EQ(ReadJsonFile(Step("whole", 3) / "train_state" / "state.json"), ReadJsonFile(Step("twice", 3) / "train_state" / "state.json"));
}

// Weights and moments in BF16, rounded to the nearest or by chance, F32 masters with both moments in BF16; scores clipped.
TEST_F(OptimizerState, GoesOnWithTheSameBitsInEveryDType) {
  const std::vector<std::vector<std::string>> ways = {
      {"weight_dtype=bfloat16", "stochastic_rounding=true"},
      {"weight_dtype=bfloat16", "nu_dtype=bfloat16", "stochastic_rounding=true", "opt_type=muon", "use_qk_clip=true",
       "qk_clip_threshold=0.1"},
      {"weight_dtype=bfloat16", "opt_type=sgd", "stochastic_rounding=true"},
      {"dtype=bfloat16", "mu_dtype=bfloat16", "nu_dtype=bfloat16", "use_qk_clip=true", "qk_clip_threshold=0.1"}};
  for (size_t i = 0; i < ways.size(); ++i) {
    const std::string whole = "whole" + std::to_string(i), twice = "twice" + std::to_string(i);
    Train(whole, 4, ways[i]);
    Train(twice, 2, ways[i]);
    Train(twice, 4, ways[i]);
    ExpectSameWeights(Step(whole, 3), Step(twice, 3));
    const auto state = [](const std::filesystem::path& step, const std::string& slot) {
      const auto file = step / "train_state" / (slot + ".safetensors");
      return std::filesystem::exists(file) ? ReadTextFile(file) : "";
    };
    for (const char* slot : {"mu", "nu"}) EXPECT_TRUE(state(Step(whole, 3), slot) == state(Step(twice, 3), slot)) << i << slot;
  }
}

TEST_F(OptimizerState, RefusesWhatCannotBeRoundedOrClipped) {
  const auto error = [&](std::vector<std::string> flags) { return ErrorOf([&] { Train("refused", 1, std::move(flags)); }); };
  EXPECT_THAT(error({"stochastic_rounding=true"}), HasSubstr("nothing that the optimizer stores is bfloat16"));
  EXPECT_THAT(error({"opt_type=sgd", "nu_dtype=bfloat16"}), HasSubstr("opt_type=sgd has no moments"));
  EXPECT_THAT(error({"use_qk_clip=true", "qk_clip_threshold=0"}), HasSubstr("above 0"));
  EXPECT_THAT(error({"use_qk_clip=true", "trainable_parameters_mask=.*mlp.*"}), HasSubstr("trains queries"));
  EXPECT_THAT(error({"use_qk_clip=true", "lora.enable_lora=true", "lora.lora_rank=4", "lora.lora_alpha=8"}), HasSubstr("lora.enable_lora"));
}

// Batches of one, two and three rows.
TEST_F(OptimizerState, AGrowingBatchGoesOnWithTheSameBits) {
  const std::vector<std::string> flags = {"per_device_batch_size=3", "enable_rampup_batch_size=true", "per_device_batch_size_start=1",
                                          "per_device_batch_size_increment=1", "global_rampup_samples=4"};
  Train("whole", 5, flags);
  Train("twice", 3, flags);
  Train("twice", 5, flags);
  ExpectSameWeights(Step("whole", 4), Step("twice", 4));
  const std::string metrics = ReadTextFile(folder_.path() / "whole" / "metrics" / "metrics.jsonl");
  for (const char* tokens : {"tokens\":16.0", "tokens\":32.0", "tokens\":48.0"}) EXPECT_THAT(metrics, HasSubstr(tokens));
}

TEST_F(OptimizerState, IsNotAnotherOptimizers) {
  Train("muon", 1, {"opt_type=muon"});
  Train("adamw", 1, {});
  EXPECT_THAT(ErrorOf([&] { Train("muon", 2, {}); }), HasSubstr("of opt_type=muon"));
  EXPECT_THAT(ErrorOf([&] { Train("adamw", 2, {"opt_type=muon"}); }), HasSubstr("not of opt_type=muon"));
  ConvertOptions convert{.input = Step("muon", 0), .output = folder_.path() / "orbax", .to = CheckpointFormat::kOrbax};
  EXPECT_THAT(ErrorOf([&] { Convert(convert); }), HasSubstr("full_state=false leaves it out"));
  convert.full_state = false;
  EXPECT_EQ(ErrorOf([&] { Convert(convert); }), "");
}

}  // namespace
}  // namespace fathom

// What a run leaves alone costs nothing and is saved byte for byte; what it trains changes; copies follow what they copied.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/checkpoint/hub/validate.h"
#include "fathom/testing/folder.h"
#include "fathom/train/load_model.h"
#include "fathom/train/loop.h"
#include "fathom/train/memory.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

bool SameBytes(const Checkpoint& a, const Checkpoint& b, const std::string& name) {
  if (!a.Has(name) || !b.Has(name)) return false;
  const Tensor x = a.Get(name), y = b.Get(name);
  return x.dtype() == y.dtype() && x.shape() == y.shape() &&
         std::memcmp(x.view().raw(), y.view().raw(), static_cast<size_t>(x.NumBytes())) == 0;
}

class Frozen : public testing::Test {
 protected:
  // A checkpoint as the hub has it: FP8, or F32, or F16 throughout; MTP modules' copies equal their originals.
  fs::path Write(Json config, std::optional<DType> all = std::nullopt) {
    auto tensors = TinyTensors(config);
    const ModelSpec spec(ParseModelConfig(config, "test"));
    for (const ParamSpec& p : spec) {
      if (p.is_copy()) FindTensor(tensors, p.name).tensor = FindTensor(tensors, spec.Original(p).name).tensor;
      if (!all) continue;
      Tensor& tensor = FindTensor(tensors, p.name).tensor;
      Tensor other(*all, tensor.shape());
      Cast(tensor.view(), other.mutable_view());
      tensor = other;
    }
    const fs::path dir = folder_.path() / "base";
    WriteCheckpoint(dir, config, tensors);
    return dir;
  }

  std::vector<std::string> Flags(const fs::path& base, const std::string& name, std::vector<std::string> more) const {
    more.insert(more.end(),
                {"load_parameters_path=" + base.string(), "dataset_type=synthetic", "max_target_length=16", "per_device_batch_size=2",
                 "dtype=float32", "weight_dtype=float32", "learning_rate=0.01", "warmup_steps_fraction=0", "run_name=" + name,
                 "learning_rate_schedule_steps=4", "base_output_directory=" + folder_.path().string()});
    return more;
  }
  Checkpoint Train(const fs::path& base, const std::string& name, int64_t steps, std::vector<std::string> more = {}) const {
    more.push_back("steps=" + std::to_string(steps));
    EXPECT_EQ(RunTraining(RunConfig::Resolve(Flags(base, name, std::move(more)))), 0);
    Checkpoint saved = Checkpoint::Open(folder_.path() / name / "checkpoints" / std::to_string(steps - 1));
    ValidateAgainstConfig(saved);
    return saved;
  }

  TemporaryFolder folder_;
  const std::string mask_ = "trainable_parameters_mask=['.*self_attn.kv.*','.*layers.1.mlp.experts.2.*']";
};

bool Matches(const ParamSpec& p) {
  return !p.is_mtp() &&
         (p.role == ParamRole::kKvDown || p.role == ParamRole::kKvNorm || p.role == ParamRole::kKvUp || (p.layer == 1 && p.expert == 2));
}

TEST_F(Frozen, StaysByteForByteInFp8F16AndF32) {
  for (const auto& [config, dtype] : {std::pair<Json, std::optional<DType>>{WithFp8(TinyConfig()), std::nullopt},
                                      {WithFp8(TinyConfig("deepseek_v32")), std::nullopt},
                                      {TinyConfig(), DType::kF32},
                                      {TinyConfig("deepseek_v2"), DType::kF16}}) {
    const fs::path base = Write(config, dtype);
    const Checkpoint before = Checkpoint::Open(base), after = Train(base, "masked", 2, {mask_});
    for (const ParamSpec& p : ModelSpec(before.config())) {
      const bool fp8 = before.Find(p.name)->dtype == DType::kF8E4M3;
      if (Matches(p)) {
        EXPECT_EQ(after.Find(p.name)->dtype, DType::kF32) << p.name;
        EXPECT_FALSE(after.Has(p.name + std::string(kScaleSuffix))) << p.name;
        EXPECT_FALSE(SameBytes(before, after, p.name)) << p.name;
      } else {
        EXPECT_TRUE(SameBytes(before, after, p.name)) << p.name;
        EXPECT_EQ(SameBytes(before, after, p.name + std::string(kScaleSuffix)), fp8) << p.name;
      }
    }
    EXPECT_EQ(after.config().raw.contains("quantization_config"), before.config().fp8);
    if (before.config().fp8) {
      const Json& plain = after.config().raw["quantization_config"]["modules_to_not_convert"];
      EXPECT_THAT(plain.dump(), HasSubstr("\"model.layers.1.mlp.experts.2.up_proj\""));
      EXPECT_THAT(plain.dump(), testing::Not(HasSubstr("q_b_proj")));
    }
    fs::remove_all(folder_.path() / "masked");
    fs::remove_all(base);
  }
}

TEST_F(Frozen, ResumingGivesTheSameBits) {
  const fs::path base = Write(WithFp8(TinyConfig()));
  Train(base, "twice", 2, {mask_});
  const Checkpoint whole = Train(base, "once", 4, {mask_}), resumed = Train(base, "twice", 4, {mask_});
  for (const std::string& name : whole.names()) EXPECT_TRUE(SameBytes(whole, resumed, name)) << name;
  EXPECT_EQ(whole.names().size(), resumed.names().size());
}

TEST_F(Frozen, CostsNoMemoryAndCountsInTheNormOnlyUnderCompat) {
  const fs::path base = Write(WithFp8(TinyConfig()));
  const auto step = [&](std::vector<std::string> more) {
    const RunConfig config = RunConfig::Resolve(Flags(base, "unused", std::move(more)));
    TrainOptions options = ReadTrainOptions(config);
    options.steps = 1;
    LoadedModel model = LoadModel(config, options, base);
    Batch batch;
    batch.Clear(2, 16);
    std::vector<int32_t> ids(17);
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i % 7);
    batch.AddSegment(0, 16, ids.data(), ids.data() + 1, 1);
    batch.AddSegment(16, 16, ids.data(), ids.data() + 1, 1);
    TrainSession session(model.config, options, std::move(model.params));
    const double norm = session.Step(batch, 0).optimizer.raw_grad_norm;
    for (const auto& [param, weight] : ListParams(session.params())) {
      EXPECT_EQ(weight->value.writable(), session.treatments().Of(*param) == Treatment::kTrained) << param->name;
    }
    return std::tuple(norm, ListParams(session.grads()).size(), session.optimizer().moments().size());
  };
  size_t matched = 0;
  for (const ParamSpec& p : ModelSpec(Checkpoint::Open(base).config())) matched += Matches(p) ? 1 : 0;
  const auto [masked, gradients, moments] = step({"steps=1", mask_});
  const auto [all, all_gradients, all_moments] = step({"steps=1"});
  const auto [measured, measured_gradients, measured_moments] = step({"steps=1", mask_, "compat=maxtext"});
  EXPECT_EQ(gradients, matched);
  EXPECT_EQ(moments, matched);
  EXPECT_EQ(measured_gradients, all_gradients);
  EXPECT_EQ(measured_moments, matched);
  EXPECT_NEAR(measured, all, 1e-4 * all);
  EXPECT_LT(masked, 0.9 * all);
}

TEST_F(Frozen, ThePlanSaysWhatStaysMapped) {
  const fs::path base = Write(WithFp8(TinyConfig()));
  const Checkpoint stored = Checkpoint::Open(base);
  int64_t frozen = 0, all = 0;
  for (const ParamSpec& p : ModelSpec(stored.config())) {
    const Weight w = stored.GetWeight(p.name);
    const int64_t bytes = w.value.NumBytes() + w.scale_inv.NumBytes();
    frozen += Matches(p) ? 0 : bytes;
    all += bytes;
  }
  const auto mapped = [&](std::vector<std::string> more) {
    more.push_back("steps=1");
    const RunConfig config = RunConfig::Resolve(Flags(base, "unused", std::move(more)));
    const TrainOptions options = ReadTrainOptions(config);
    return PlanTraining(options, 2, [&] { return LoadModel(config, options, base); }).mapped;
  };
  EXPECT_EQ(mapped({mask_}), frozen);
  EXPECT_EQ(mapped({"lora.enable_lora=true", "lora.lora_rank=2", "lora.lora_alpha=4"}), all);
  EXPECT_LT(mapped({}), frozen) << "the MTP module alone";
  EXPECT_LT(mapped({"mtp_num_layers=1"}), mapped({})) << "router biases";
}

TEST_F(Frozen, CopiesOfEmbeddingAndHeadFollowWhatTheyCopied) {
  const fs::path base = Write(TinyConfig(), DType::kF32);
  const Checkpoint before = Checkpoint::Open(base), after = Train(base, "plain", 2);
  const ModelSpec spec(before.config());
  for (const ParamSpec& p : spec) {
    if (!p.is_copy()) continue;
    const Tensor copy = after.Get(p.name), original = after.Get(spec.Original(p).name);
    EXPECT_EQ(std::memcmp(copy.view().raw(), original.view().raw(), static_cast<size_t>(copy.NumBytes())), 0) << p.name;
    EXPECT_FALSE(SameBytes(before, after, p.name)) << p.name;
  }
  EXPECT_TRUE(SameBytes(before, after, "model.layers.2.eh_proj.weight"));
}

TEST_F(Frozen, AMaskThatFreezesEverythingIsNamed) {
  const fs::path base = Write(TinyConfig(), DType::kF32);
  EXPECT_THROW(Train(base, "none", 1, {"trainable_parameters_mask=nothing_like_this"}), Error);
}

}  // namespace
}  // namespace fathom

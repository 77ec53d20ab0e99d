#include "fathom/infer/decode_plan.h"

#include <gtest/gtest.h>

#include "fathom/base/plan_scope.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/infer/generate.h"
#include "fathom/model/load.h"
#include "fathom/model/tiny_config.h"
#include "fathom/parallel/test_threads.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

ModelConfig Model(const std::string& name) { return ModelFromFlags(RunConfig::Resolve({"model_name=" + name})); }

DecodePlan PlanOf(const ModelConfig& model, const DecodeShape& shape, const Mesh& mesh = {}) {
  const Sharding sharding(model, mesh);
  const PlanScope scope(1);
  return PlanDecode(sharding, MapHubParams(model, [&](const ParamSpec& p) { return sharding.Computed(p); }), DType::kBF16, shape);
}

DecodePlan HubPlan(const std::string& name, int64_t capacity) { return PlanOf(Model(name), {1, 16, capacity}); }

TEST(DecodePlan, CacheIsWhatTheEngineAllocates) {
  for (const char* name : {"deepseek3-tiny", "deepseek3.2-671b"}) {
    ModelConfig model = Model(name);
    model.num_hidden_layers = 3;
    EXPECT_EQ(CachePool::PlannedBytes(model, 3, 100, DType::kBF16), CachePool(model, 3, 2, DType::kBF16).NumBytes());
  }
}

TEST(DecodePlan, WeightsAreAnEngines) {
  const std::filesystem::path dir = std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v3";
  const MappedModel model(Checkpoint::Open(dir), DType::kF32, 16);
  const Engine engine(model, 1);
  const DecodePlan plan = PlanDecode(Sharding(model.config(), {}), model.params(), DType::kF32, {1, 8, 16});
  EXPECT_EQ(plan.weight_bytes, model.WeightBytes());
  EXPECT_EQ(plan.cache_bytes, engine.CacheBytes());
  EXPECT_LT(plan.step.weights, plan.weight_bytes);
}

// 37 B of 671 B parameters meet a token; 576 numbers a layer and token are kept.
TEST(DecodePlan, FullModel) {
  const DecodePlan plan = HubPlan("deepseek3-671b", 4096);
  EXPECT_NEAR(static_cast<double>(plan.step.weights), 37.6e9, 1.0e9);
  EXPECT_EQ(plan.cache_bytes, int64_t{61} * 4096 * 576 * 2);
  EXPECT_EQ(plan.cache_per_step, plan.cache_bytes);
}

TEST(DecodePlan, AnMtpModuleIsMappedAndNotTouched) {
  ModelConfig with = Model("deepseek3-671b");
  with.num_nextn_predict_layers = 1;
  const DecodePlan plan = PlanOf(with, {1, 16, 4096}), without = HubPlan("deepseek3-671b", 4096);
  EXPECT_EQ(plan.step.weights, without.step.weights);
  EXPECT_EQ(plan.page_bytes, without.page_bytes);
  EXPECT_GT(plan.weight_bytes, without.weight_bytes + 10'000'000'000);
}

TEST(DecodePlan, SparseAttentionReadsLess) {
  const DecodePlan plan = HubPlan("deepseek3.2-671b", 65536);
  EXPECT_LT(plan.cache_per_step, plan.cache_bytes / 4);
}

TEST(DecodePlan, SequencesThatDecodeTogetherReadMoreExperts) {
  const ModelConfig model = Model("deepseek3-671b");
  const DecodePlan one = PlanOf(model, {1, 16, 64}), many = PlanOf(model, {256, 16, 64});
  EXPECT_NEAR(static_cast<double>(one.step.weights - one.always_bytes), static_cast<double>(one.expert_bytes) * 8 / 256, 1e6);
  EXPECT_GT(many.step.weights - many.always_bytes, many.expert_bytes * 99 / 100);
  EXPECT_NEAR(many.step.flops, 256 * one.step.flops, 0.05 * many.step.flops);
}

void ExpectSent(const AxisTraffic& sent, const AxisTraffic& planned) {
  for (size_t i = 0; i < sent.size(); ++i) EXPECT_EQ(sent[i].bytes_sent, planned[i].bytes_sent) << AxisName(kAxes[i]);
}

DecodePlan StoredPlan(const std::filesystem::path& dir, const DecodeShape& shape, const Mesh& mesh) {
  const Checkpoint checkpoint = Checkpoint::Open(dir);
  const Sharding sharding(checkpoint.config(), mesh);
  const PlanScope scope(1);
  return PlanDecode(sharding, MapParams(checkpoint, [&](const ParamSpec& p) { return sharding.Computed(p); }), DType::kBF16, shape);
}

// The module and its cache, and more is sent: as much as if each of its tokens went through one layer more.
TEST(DecodePlan, DraftsTakeAModule) {
  ModelConfig model = Model("deepseek3-671b");
  model.num_nextn_predict_layers = 1;
  const auto plan_of = [&](int64_t drafts) {
    MeshSizes sizes;
    sizes[static_cast<size_t>(Axis::kExpert)].ici = 2;
    return PlanOf(model, {4, 16, 1024, drafts}, Mesh(Comm::Planned(0, 2, 1), sizes));
  };
  const DecodePlan plain = plan_of(0), drafting = plan_of(2);
  EXPECT_EQ(drafting.cache_bytes, plain.cache_bytes / 61 * 62);
  EXPECT_GT(drafting.page_bytes, plain.page_bytes + 5'000'000'000);
  const auto sent = [](const PassCost& cost) { return cost.traffic[static_cast<size_t>(Axis::kExpert)].bytes_sent; };
  EXPECT_EQ(sent(plain.drafted_step), 0);
  EXPECT_EQ(sent(drafting.drafted_step), sent(drafting.step) * 3 + sent(drafting.step) / 58 * 4 + 8);
}

// Whatever the prompt's length: in parts, and of three ranks that cannot divide a sum evenly.
TEST(DecodePlan, BytesAreThoseThatRanksSend) {
  ModelConfig model = TinyConfig(ModelFamily::kV3, 11);
  model.num_attention_heads = 6;
  model.n_routed_experts = 6;
  model.moe_intermediate_size = 24;
  model.intermediate_size = 48;
  DecoderParams params = InitParams(model, 3, DType::kF32, false);
  const TemporaryFolder folder;
  std::vector<NamedTensor> tensors;
  for (const NamedWeight& w : ListParams(params)) tensors.push_back({w.spec->name, w.weight->value.view()});
  WriteModelFiles(folder.path(), ModelConfigToJson(model), tensors, SaveOptions().max_shard_size);
  constexpr int64_t kNew = 5;
  for (const auto& [expert, tensor] : {std::pair{1, 2}, {3, 1}, {2, 2}, {1, 3}}) {
    MeshSizes sizes;
    sizes[static_cast<size_t>(Axis::kExpert)].ici = expert;
    sizes[static_cast<size_t>(Axis::kTensor)].ici = tensor;
    for (const int64_t prompt : {int64_t{1}, int64_t{70}, int64_t{600}}) {
      const DecodePlan plan = StoredPlan(folder.path(), {1, prompt, prompt + kNew}, Mesh(Comm::Planned(0, expert * tensor, 1), sizes));
      const AxisTraffic planned = AddTraffic(plan.prompts.traffic, plan.step.traffic, kNew - 1);
      RunRanks(expert * tensor, [&](const Comm& world) {
        const Mesh mesh(world, sizes);
        const MappedModel mapped(Checkpoint::Open(folder.path()), DType::kBF16, prompt + kNew, {}, {}, {}, mesh);
        Engine engine(mapped, 1);
        const std::vector<int32_t> ids(static_cast<size_t>(prompt), 3);
        Generate(engine, nullptr, ids, {.max_new_tokens = kNew, .ignore_eos = true}, {});
        if (world.rank() == 0) ExpectSent(TrafficByAxis(mesh), planned);
      });
    }
  }
}

}  // namespace
}  // namespace fathom

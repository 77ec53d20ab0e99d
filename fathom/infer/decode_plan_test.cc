#include "fathom/infer/decode_plan.h"

#include <gtest/gtest.h>

#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/infer/engine.h"

namespace fathom {
namespace {

ModelConfig Model(const std::string& name) { return ModelFromFlags(RunConfig::Resolve({"model_name=" + name})); }

DecodePlan HubPlan(const std::string& name, int64_t capacity) {
  const ModelConfig model = Model(name);
  return PlanDecode(model, HubTensors(model, true), DType::kBF16, capacity);
}

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
  const DecodePlan plan = PlanDecode(engine.config(), StoredTensors(TensorFolder::Open(dir)), DType::kF32, 16);
  EXPECT_EQ(plan.weight_bytes, model.WeightBytes());
  EXPECT_EQ(plan.cache_bytes, engine.CacheBytes());
  EXPECT_LT(plan.weights_per_token, plan.weight_bytes);
}

// 37 B of 671 B parameters meet a token; 576 numbers a layer and token are kept.
TEST(DecodePlan, FullModel) {
  const DecodePlan plan = HubPlan("deepseek3-671b", 4096);
  EXPECT_NEAR(static_cast<double>(plan.weights_per_token), 37.6e9, 1.0e9);
  EXPECT_EQ(plan.cache_bytes, int64_t{61} * 4096 * 576 * 2);
  EXPECT_EQ(plan.cache_per_token, plan.cache_bytes);
}

TEST(DecodePlan, AnMtpModuleIsNotReadByToken) {
  ModelConfig with = Model("deepseek3-671b");
  with.num_nextn_predict_layers = 1;
  const DecodePlan plan = PlanDecode(with, HubTensors(with, true), DType::kBF16, 4096), without = HubPlan("deepseek3-671b", 4096);
  EXPECT_EQ(plan.weights_per_token, without.weights_per_token);
  EXPECT_GT(plan.weight_bytes, without.weight_bytes + 10'000'000'000);
}

TEST(DecodePlan, SparseAttentionReadsLess) {
  const DecodePlan plan = HubPlan("deepseek3.2-671b", 65536);
  EXPECT_LT(plan.cache_per_token, plan.cache_bytes / 4);
}

}  // namespace
}  // namespace fathom

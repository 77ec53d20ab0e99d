#include "fathom/checkpoint/hub/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fathom/checkpoint/hub/test_checkpoint.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ValidateTest : public testing::TestWithParam<std::string> {
 protected:
  std::vector<std::string> Differences(const ValidateOptions& options = {}) {
    WriteCheckpoint(folder_.path(), config_, tensors_);
    const ModelConfig config = ReadModelConfig(folder_.path());
    std::vector<std::string> found;
    CompareWithConfig(TensorFolder::Open(folder_.path()), config, options, [&](const std::string& message) { found.push_back(message); });
    EXPECT_EQ(found.empty(), !OpeningThrows({.allow_missing_indexer = options.allow_missing_indexer}));
    return found;
  }
  bool OpeningThrows(const OpenOptions& options) {
    try {
      Checkpoint::Open(folder_.path(), options);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInput);
      return true;
    }
    return false;
  }
  void Use(const Json& config) {
    config_ = config;
    tensors_ = TinyTensors(config);
  }
  TemporaryFolder folder_;
  Json config_;
  std::vector<TestTensor> tensors_;
};

TEST_P(ValidateTest, ListedTensorsAreAccepted) {
  Use(TinyConfig(GetParam()));
  EXPECT_THAT(Differences(), IsEmpty());
  Use(WithFp8(config_));
  EXPECT_THAT(Differences(), IsEmpty());
}

TEST_P(ValidateTest, EveryMissingTensorIsNamed) {
  Use(TinyConfig(GetParam()));
  const auto all = tensors_;
  for (const TestTensor& victim : all) {
    if (victim.name.find(".experts.") != victim.name.npos && victim.name.find(".experts.3.") == victim.name.npos) continue;
    tensors_ = all;
    EraseTensor(tensors_, victim.name);
    EXPECT_THAT(Differences(), ElementsAre(testing::AllOf(HasSubstr(victim.name), HasSubstr("missing")))) << victim.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ValidateTest, testing::Values("deepseek_v2", "deepseek_v3", "deepseek_v32"));

TEST_F(ValidateTest, ShapesAndDTypes) {
  Use(TinyConfig());
  FindTensor(tensors_, "lm_head.weight").tensor = Tensor(DType::kF32, {24, 17});
  FindTensor(tensors_, "model.norm.weight").tensor = Tensor(DType::kI32, {16});
  FindTensor(tensors_, "model.layers.0.mlp.up_proj.weight").tensor = Tensor(DType::kF8E4M3, {20, 16});
  tensors_.push_back({"model.layers.7.mlp.up_proj.weight", Tensor(DType::kF32, {20, 16})});
  tensors_.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", Tensor(DType::kF32, {2})});
  EXPECT_THAT(Differences(), testing::UnorderedElementsAre(
                                 testing::AllOf(HasSubstr("lm_head.weight"), HasSubstr("shape is [24, 17], config.json implies [24, 16]")),
                                 testing::AllOf(HasSubstr("model.norm.weight"), HasSubstr("dtype is I32")),
                                 testing::AllOf(HasSubstr("model.layers.0.mlp.up_proj.weight"), HasSubstr("no quantization_config")),
                                 testing::AllOf(HasSubstr("model.layers.7.mlp.up_proj.weight"), HasSubstr("extra"))));
}

TEST_F(ValidateTest, Fp8) {
  Use(WithFp8(TinyConfig()));
  FindTensor(tensors_, "model.layers.0.mlp.up_proj.weight_scale_inv").tensor = Tensor(DType::kF32, {2, 1});
  FindTensor(tensors_, "model.layers.0.mlp.gate_proj.weight").tensor = Tensor(DType::kBF16, {20, 16});
  EraseTensor(tensors_, "model.layers.0.mlp.gate_proj.weight_scale_inv");
  EraseTensor(tensors_, "model.layers.0.mlp.down_proj.weight_scale_inv");
  tensors_.push_back({"lm_head.weight_scale_inv", Tensor(DType::kF32, {1, 1})});
  EXPECT_THAT(Differences(), testing::UnorderedElementsAre(HasSubstr("up_proj.weight_scale_inv is [2, 1]"),
                                                           HasSubstr("dtype is BF16, config.json implies F8_E4M3"),
                                                           HasSubstr("down_proj.weight_scale_inv is missing"),
                                                           HasSubstr("lm_head.weight_scale_inv: F32 [1, 1] is extra")));
}

TEST_F(ValidateTest, SharedCopiesMayBeAbsentTogether) {
  Use(TinyConfig());
  EraseTensor(tensors_, "model.layers.2.embed_tokens.weight");
  EXPECT_THAT(Differences(), ElementsAre(HasSubstr("model.layers.2.embed_tokens.weight is missing")));
  EraseTensor(tensors_, "model.layers.2.shared_head.head.weight");
  EXPECT_THAT(Differences(), IsEmpty());
}

TEST_F(ValidateTest, MissingParts) {
  Use(TinyConfig("deepseek_v32"));
  std::erase_if(tensors_, [](const TestTensor& t) { return t.name.starts_with("model.layers.2."); });
  EXPECT_THAT(Differences(), IsEmpty());
  EXPECT_EQ(Checkpoint::Open(folder_.path()).config().num_nextn_predict_layers, 0);
  std::erase_if(tensors_, [](const TestTensor& t) { return t.name.find(".indexer.") != t.name.npos; });
  EXPECT_FALSE(Differences().empty());
  EXPECT_THAT(Differences({.allow_missing_indexer = true}), IsEmpty());
}

TEST_F(ValidateTest, OfficialShapes) {
  Json json = TinyConfig();
  json.update({{"vocab_size", 129280},
               {"hidden_size", 7168},
               {"intermediate_size", 18432},
               {"moe_intermediate_size", 2048},
               {"num_hidden_layers", 61},
               {"num_attention_heads", 128},
               {"q_lora_rank", 1536},
               {"kv_lora_rank", 512},
               {"qk_nope_head_dim", 128},
               {"qk_rope_head_dim", 64},
               {"v_head_dim", 128},
               {"n_routed_experts", 256},
               {"num_experts_per_tok", 8},
               {"first_k_dense_replace", 3},
               {"n_group", 8},
               {"topk_group", 4},
               {"max_position_embeddings", 163840}});
  const ModelSpec spec(ParseModelConfig(json, "test"));
  const ParameterCounts counts = CountParameters(ParseModelConfig(json, "test"));
  EXPECT_EQ(counts.total, 671026404352);  // the report's 671B
  EXPECT_NEAR(static_cast<double>(counts.active), 37.5e9, 0.1e9);
  EXPECT_NEAR(static_cast<double>(counts.mtp), 11.6e9, 0.1e9);
  const auto shape_of = [&](const std::string& name) { return spec.Find(name)->shape; };
  EXPECT_EQ(shape_of("model.layers.60.self_attn.q_b_proj.weight"), (Shape{24576, 1536}));
  EXPECT_EQ(shape_of("model.layers.60.self_attn.kv_a_proj_with_mqa.weight"), (Shape{576, 7168}));
  EXPECT_EQ(shape_of("model.layers.60.self_attn.kv_b_proj.weight"), (Shape{32768, 512}));
  EXPECT_EQ(shape_of("model.layers.61.eh_proj.weight"), (Shape{7168, 14336}));
}

TEST_F(ValidateTest, MoreTensorsThanAnyModelHas) {
  Json json = TinyConfig();
  json.update({{"num_hidden_layers", 10000}, {"n_routed_experts", 65536}});
  EXPECT_THROW(ModelSpec(ParseModelConfig(json, "test")), Error);
}

}  // namespace
}  // namespace fathom

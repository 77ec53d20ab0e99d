#include "fathom/spec/model_spec.h"

#include <gtest/gtest.h>

#include <set>

namespace fathom {
namespace {

ModelConfig Config(int64_t q_rank, int64_t index_topk, TopkMethod method) {
  ModelConfig c;
  c.vocab_size = 50;
  c.hidden_size = 24;
  c.intermediate_size = 40;
  c.moe_intermediate_size = 20;
  c.num_hidden_layers = 3;
  c.num_attention_heads = 2;
  c.first_k_dense_replace = 1;
  c.n_routed_experts = 4;
  c.num_experts_per_tok = 2;
  c.n_shared_experts = 1;
  c.topk_method = method;
  c.q_lora_rank = q_rank;
  c.kv_lora_rank = 12;
  c.qk_nope_head_dim = 8;
  c.qk_rope_head_dim = 6;
  c.v_head_dim = 10;
  c.num_nextn_predict_layers = method == TopkMethod::kNoauxTc ? 2 : 0;
  c.index_topk = index_topk;
  c.index_n_heads = 4;
  c.index_head_dim = 8;
  return c;
}

std::vector<ModelConfig> Families() {
  return {Config(0, 0, TopkMethod::kGreedy), Config(16, 0, TopkMethod::kNoauxTc), Config(16, 6, TopkMethod::kNoauxTc)};
}

// The name says all that the spec says.
TEST(ModelSpec, NamesAndRolesAgree) {
  for (const ModelConfig& config : Families()) {
    const ModelSpec spec(config);
    std::set<std::string> names;
    for (const ParamSpec& p : spec) {
      EXPECT_TRUE(names.insert(p.name).second) << p.name;
      EXPECT_EQ(RoleOf(p.name), p.role) << p.name;
      EXPECT_EQ(spec.Find(p.name), &p);
      EXPECT_EQ(p.layer >= 0, p.name.starts_with(LayerPrefix(p.layer))) << p.name;
      EXPECT_EQ(p.is_expert(), p.name.find("mlp.experts." + std::to_string(p.expert) + ".") != p.name.npos) << p.name;
      EXPECT_EQ(p.is_mtp(), p.layer >= config.num_hidden_layers) << p.name;
      EXPECT_EQ(p.is_indexer(), p.name.find(".indexer.") != p.name.npos) << p.name;
      EXPECT_EQ(p.shape.rank(), p.facts().fresh == FreshValues::kFanIn || p.facts().fresh == FreshValues::kUnitNormal ? 2 : 1) << p.name;
    }
  }
}

TEST(ModelSpec, CopiesKnowTheirOriginals) {
  const ModelSpec spec(Families()[1]);
  EXPECT_EQ(spec.Original(*spec.Find("model.layers.4.embed_tokens.weight")).name, "model.embed_tokens.weight");
  EXPECT_EQ(spec.Original(*spec.Find("model.layers.3.shared_head.head.weight")).name, "lm_head.weight");
  EXPECT_EQ(spec.Original(*spec.Find("model.layers.3.eh_proj.weight")).name, "model.layers.3.eh_proj.weight");
  EXPECT_EQ(spec.Find("model.layers.5.eh_proj.weight"), nullptr);
}

TEST(RoleOf, KnowsOnlyTheHubsNames) {
  EXPECT_EQ(RoleOf("model.layers.0.mlp.experts.12.up_proj.weight"), ParamRole::kExpertUp);
  EXPECT_EQ(RoleOf("model.layers.61.shared_head.norm.weight"), ParamRole::kMtpFinalNorm);
  EXPECT_EQ(RoleOf("lm_head.weight"), ParamRole::kHead);
  for (const char* name :
       {"", "up_proj.weight", "model.layers.0.lm_head.weight", "model.layers.x.mlp.up_proj.weight", "embed_tokens.weight",
        "model.layers.0.mlp.experts.1.input_layernorm.weight", "model.layers.0.mlp.up_proj.weight_scale_inv"}) {
    EXPECT_EQ(RoleOf(name), std::nullopt) << name;
  }
}

// As DeepSeek publishes them.
TEST(RoleFacts, WhatIsFp8AndWhatStaysF32) {
  const auto storage = [](const char* name) { return FactsOf(*RoleOf(name)).storage; };
  for (const char* name : {"model.layers.0.self_attn.kv_b_proj.weight", "model.layers.0.self_attn.indexer.wk.weight",
                           "model.layers.3.mlp.experts.0.down_proj.weight", "model.layers.3.mlp.shared_experts.gate_proj.weight",
                           "model.layers.0.mlp.up_proj.weight"})
    EXPECT_EQ(storage(name), HubStorage::kFp8) << name;
  for (const char* name :
       {"model.embed_tokens.weight", "lm_head.weight", "model.layers.3.mlp.gate.weight", "model.layers.61.eh_proj.weight",
        "model.layers.0.self_attn.indexer.weights_proj.weight", "model.layers.0.self_attn.q_a_layernorm.weight"})
    EXPECT_EQ(storage(name), HubStorage::kPlain) << name;
  for (const char* name : {"model.layers.3.mlp.gate.e_score_correction_bias", "model.layers.0.self_attn.indexer.k_norm.weight",
                           "model.layers.0.self_attn.indexer.k_norm.bias"})
    EXPECT_EQ(storage(name), HubStorage::kF32) << name;
}

TEST(CountParameters, ActiveOnesAreWhatATokenMeets) {
  const ParameterCounts counts = CountParameters(Families()[1]);
  int64_t expert = 3 * 20 * 24;
  EXPECT_EQ(counts.total - counts.active, 2 * 2 * expert);  // two MoE layers, two of four experts each
  EXPECT_GT(counts.mtp, 2 * 4 * expert);
}

}  // namespace
}  // namespace fathom

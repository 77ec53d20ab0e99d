#include "fathom/config/model_from_flags.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

using Words = std::vector<std::string>;

ModelConfig ModelOf(const Words& words) { return ModelFromFlags(RunConfig::Resolve(words)); }

template <class F>
std::string ErrorOf(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kUsage) << e.what();
    return e.what();
  }
  return "";
}

TEST(ModelFromFlags, OfficialModels) {
  const ModelConfig lite = ModelOf({"model_name=deepseek2-16b"});
  EXPECT_EQ(lite.family, ModelFamily::kV2);
  EXPECT_EQ(lite.topk_method, TopkMethod::kGreedy);
  EXPECT_EQ(lite.q_lora_rank, 0);
  EXPECT_DOUBLE_EQ(lite.rope_scaling->mscale, 0.707);
  EXPECT_EQ(lite.eos_token_ids, std::vector<int64_t>{100001});
  const ModelConfig v2 = ModelOf({"model_name=deepseek2-236b"});
  EXPECT_EQ(v2.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(v2.n_group, 8);
  EXPECT_EQ(v2.topk_group, 3);
  EXPECT_EQ(v2.routed_scaling_factor, 16);
  const ModelConfig v3 = ModelOf({"model_name=deepseek3-671b", "mtp_num_layers=1"});
  EXPECT_EQ(v3.family, ModelFamily::kV3);
  EXPECT_EQ(v3.topk_method, TopkMethod::kNoauxTc);
  EXPECT_EQ(v3.topk_group, 4);
  EXPECT_EQ(v3.num_hidden_layers, 61);
  EXPECT_EQ(v3.num_nextn_predict_layers, 1);
  EXPECT_TRUE(v3.norm_topk_prob);
  const ModelConfig v32 = ModelOf({"model_name=deepseek3.2-671b"});
  EXPECT_EQ(v32.family, ModelFamily::kV32);
  EXPECT_EQ(v32.index_topk, 2048);
}

TEST(ModelFromFlags, BecomesAConfigJson) {
  for (const char* name : {"deepseek2-16b", "deepseek2-236b", "deepseek3-671b", "deepseek3.2-671b", "deepseek3-tiny"}) {
    const ModelConfig model = ModelOf({std::string("model_name=") + name});
    const Json json = ModelConfigToJson(model);
    EXPECT_EQ(ModelConfigToJson(ParseModelConfig(json, name)), json);
  }
}

TEST(ModelFromFlags, TinyWithOtherSizes) {
  const ModelConfig model = ModelOf({"model_name=deepseek3-tiny", "override_model_config=true", "base_num_decoder_layers=4",
                                     "first_num_dense_layers=1", "vocab_size=256"});
  EXPECT_EQ(model.num_hidden_layers, 4);
  EXPECT_EQ(model.n_group, 1);
  EXPECT_EQ(model.topk_group, 1);
}

TEST(ModelFromFlags, WithoutAModelName) {
  const ModelConfig model = ModelOf({});
  EXPECT_EQ(model.n_routed_experts, 0);
  EXPECT_EQ(model.hidden_size, 2048);
  EXPECT_FALSE(model.is_moe_layer(5));
}

TEST(ModelFromFlags, Scales) {
  const Words base = {"base_emb_dim=64", "base_num_query_heads=2", "base_num_kv_heads=2", "base_num_decoder_layers=3"};
  Words words = base;
  words.push_back("global_parameter_scale=4");
  const ModelConfig model = ModelOf(words);
  EXPECT_EQ(model.hidden_size, 128);
  EXPECT_EQ(model.num_attention_heads, 4);
  EXPECT_EQ(model.num_hidden_layers, 3);
  words.back() = "global_parameter_scale=2";
  EXPECT_EQ(ModelOf(words).hidden_size, 64);
  EXPECT_EQ(ModelOf(words).num_attention_heads, 4);
  words.back() = "global_parameter_scale=8";
  EXPECT_EQ(ModelOf(words).num_hidden_layers, 6);
}

TEST(ModelFromFlags, RefusesWhatNoDeepSeekHas) {
  const Words cases[] = {{"base_num_kv_heads=4"},
                         {"logits_via_embedding=true"},
                         {"mlp_activations=[gelu,linear]"},
                         {"num_experts=8", "num_experts_per_tok=9"},
                         {"num_experts=8", "num_experts_per_tok=2", "routed_score_func=sigmoid"},
                         {"num_experts=8", "num_experts_per_tok=2", "routed_bias=true"},
                         {"num_experts=8", "num_experts_per_tok=2", "n_routing_groups=3"},
                         {"use_indexer=true"},
                         {"use_indexer=true", "q_lora_rank=8", "indexer_topk=0"},
                         {"base_num_query_heads=0", "base_num_kv_heads=0"},
                         {"qk_rope_head_dim=3"},
                         {"base_emb_dim=9223372036854775807", "global_parameter_scale=8"}};
  for (const Words& words : cases) EXPECT_NE(ErrorOf([&] { ModelOf(words); }), "") << words[0];
}

TEST(CheckModelName, ComparesFamilies) {
  const ModelConfig v3 = ModelOf({"model_name=deepseek3-tiny"});
  const auto check = [&](const Words& words) { return ErrorOf([&] { CheckModelName(RunConfig::Resolve(words), v3, "D/config.json"); }); };
  EXPECT_EQ(check({}), "");
  EXPECT_EQ(check({"model_name=deepseek3-671b"}), "");
  EXPECT_NE(check({"model_name=deepseek2-16b"}).find("D/config.json says deepseek_v3"), std::string::npos);
}

// One warning names all that was given and differs; nothing is said where all agrees.
TEST(CheckModelName, NamesAllThatDiffers) {
  const ModelConfig tiny = ModelOf({"model_name=deepseek3-tiny"});
  const auto said = [&](const Words& words) {
    testing::internal::CaptureStdout();
    CheckModelName(RunConfig::Resolve(words), tiny, "D/config.json");
    return testing::internal::GetCapturedStdout();
  };
  EXPECT_EQ(said({"model_name=deepseek3-tiny"}), "");
  EXPECT_EQ(said({}), "");
  EXPECT_EQ(said({"base_emb_dim=64", "routed_scaling_factor=2.5"}), "");
  const std::string large = said({"model_name=deepseek3-671b"});
  for (const char* part : {"model_name=deepseek3-671b with base_emb_dim=7168 (64)", "num_experts=256 (16)"})
    EXPECT_NE(large.find(part), large.npos) << large;
  const std::string given = said({"model_name=deepseek3-tiny", "override_model_config=true", "base_emb_dim=32", "mscale=0.5"});
  EXPECT_NE(given.find("base_emb_dim=32 (64); mscale=0.5 (1)"), given.npos) << given;
  EXPECT_EQ(given.find("model_name"), given.npos) << given;
}

TEST(FollowGivenFlags, RefusesAnotherModelAndTakesTheIndexersWindow) {
  const auto follow = [](ModelConfig model, const Words& words) {
    return ErrorOf([&] { FollowGivenFlags(RunConfig::Resolve(words), model, "D/config.json"); });
  };
  const ModelConfig tiny = ModelOf({"model_name=deepseek3-tiny"});
  ModelConfig v32 = ModelOf({"model_name=deepseek3.2-671b"});
  EXPECT_EQ(follow(tiny, {}), "");
  EXPECT_EQ(follow(tiny, {"model_name=deepseek3-671b"}), "") << "CheckModelName's";
  EXPECT_EQ(follow(tiny, {"base_emb_dim=64", "routed_scaling_factor=2.5", "use_indexer=false", "initializer_range=7", "bos_token_id=7"}),
            "");
  for (const std::string flag : {"num_experts_per_tok=1", "first_num_dense_layers=0", "routed_scaling_factor=3", "rope_type=default",
                                 "n_routing_groups=2", "use_indexer=true", "routed_bias=false", "routed_score_func=softmax"}) {
    const std::string error = follow(tiny, {"override_model_config=true", flag});
    EXPECT_EQ(error.find(flag + " is given, but D/config.json has "), 0U) << flag << ": " << error;
  }
  EXPECT_NE(follow(v32, {"indexer_topk=2"}).find("give override_model_config=true"), std::string::npos);
  const RunConfig flags = RunConfig::Resolve({"model_name=deepseek3.2-671b", "override_model_config=true", "indexer_topk=2"});
  FollowGivenFlags(flags, v32, "D/config.json");
  EXPECT_EQ(v32.index_topk, 2);
}

TEST(CheckTrainingFlags, FitTheModel) {
  const ModelConfig v3 = ModelOf({"model_name=deepseek3-tiny"}), lite = ModelOf({"model_name=deepseek2-16b"});
  const auto check = [&](const ModelConfig& model, const Words& words) {
    return ErrorOf([&] { CheckTrainingFlags(RunConfig::Resolve(words), model); });
  };
  EXPECT_EQ(check(v3, {"routed_bias_update_rate=0.001"}), "");
  EXPECT_NE(check(lite, {"routed_bias_update_rate=0.001"}), "");
  EXPECT_NE(check(v3, {"indexer_loss_scaling_factor=0.01"}), "");
  EXPECT_NE(check(v3, {"max_target_length=200000"}), "");
  const ModelConfig v32 = ModelOf({"model_name=deepseek3.2-671b"});
  const std::string mask = "trainable_parameters_mask=['.*indexer.*']";
  EXPECT_NE(check(v32, {mask}).find("indexer_loss_scaling_factor above 0"), std::string::npos);
  EXPECT_EQ(check(v32, {mask, "indexer_loss_scaling_factor=0.01"}), "");
}

}  // namespace
}  // namespace fathom

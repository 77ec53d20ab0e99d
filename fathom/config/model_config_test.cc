#include "fathom/config/model_config.h"

#include <gtest/gtest.h>

#include <limits>

#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

const std::filesystem::path kData = std::filesystem::path(FATHOM_TEST_DATA) / "config";

Json Load(const std::string& name) { return ReadJsonFile(kData / (name + ".json")); }

// The published config.json of DeepSeek-V3.1 (V3 and R1 without scale_fmt).
Json HubV31() {
  Json json = Load("v3");
  json.update(Json::parse(R"({"auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "bos_token_id": 0, "eos_token_id": 1,
    "first_k_dense_replace": 3, "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048, "n_group": 8, "n_routed_experts": 256, "num_attention_heads": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 61, "num_key_value_heads": 128, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "topk_group": 4, "torch_dtype": "bfloat16", "transformers_version": "4.44.2", "v_head_dim": 128, "vocab_size": 129280, "ep_size": 1,
    "aux_loss_alpha": 0.001, "seq_aux": true, "pretraining_tp": 1, "pad_token_id": null,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "scale_fmt": "ue8m0",
      "weight_block_size": [128, 128]}})"));
  return json;
}

// The message of the error that parsing throws; "" if it doesn't.
std::string ErrorOf(const Json& json) {
  try {
    ParseModelConfig(json, "config.json");
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kInput);
    return e.what();
  }
  return "";
}

std::string ErrorWith(const std::string& base, const char* key, Json value) {
  Json json = Load(base);
  json[key] = std::move(value);
  return ErrorOf(json);
}

void ExpectNames(const std::string& error, const std::string& name) { EXPECT_NE(error.find(name), error.npos) << '"' << error << '"'; }

TEST(ModelConfig, ReadsEachFamily) {
  const ModelConfig lite = ParseModelConfig(Load("v2-lite"), "v2-lite");
  EXPECT_EQ(lite.family, ModelFamily::kV2);
  EXPECT_EQ(lite.q_lora_rank, 0);
  EXPECT_EQ(lite.topk_method, TopkMethod::kGreedy);
  EXPECT_EQ(lite.scoring_func, ScoringFunc::kSoftmax);
  EXPECT_FALSE(lite.norm_topk_prob);
  EXPECT_DOUBLE_EQ(lite.rope_scaling->mscale_all_dim, 0.707);
  const ModelConfig v2 = ParseModelConfig(Load("v2"), "v2");
  EXPECT_EQ(v2.topk_method, TopkMethod::kGroupLimitedGreedy);
  EXPECT_EQ(v2.n_group, 4);
  EXPECT_EQ(v2.q_lora_rank, 48);
  EXPECT_EQ(v2.routed_scaling_factor, 16);
  const ModelConfig v3 = ParseModelConfig(Load("v3"), "v3");
  EXPECT_EQ(v3.topk_method, TopkMethod::kNoauxTc);
  EXPECT_EQ(v3.num_nextn_predict_layers, 1);
  EXPECT_TRUE(v3.norm_topk_prob);
  EXPECT_FALSE(v3.has_indexer());
  EXPECT_FALSE(v3.fp8);
  const ModelConfig v32 = ParseModelConfig(Load("v32"), "v32");
  EXPECT_EQ(v32.family, ModelFamily::kV32);
  EXPECT_EQ(v32.index_topk, 12);
  EXPECT_EQ(v32.index_n_heads, 16);
}

TEST(ModelConfig, ReadsFp8) {
  EXPECT_TRUE(ParseModelConfig(Load("v3-fp8"), "v3-fp8").fp8);
  const ModelConfig v32 = ParseModelConfig(Load("v32-fp8"), "v32-fp8");
  EXPECT_TRUE(v32.fp8);
  EXPECT_TRUE(v32.scale_ue8m0);
  const ModelConfig hub = ParseModelConfig(HubV31(), "hub");
  EXPECT_EQ(hub.n_group, 8);
  EXPECT_EQ(hub.topk_group, 4);
  EXPECT_TRUE(hub.scale_ue8m0);
}

TEST(ModelConfig, ReadsTransformers5) {
  const ModelConfig v32 = ParseModelConfig(Load("v32-transformers5"), "v32");
  EXPECT_DOUBLE_EQ(v32.rope_scaling->factor, 40);
  EXPECT_EQ(v32.torch_dtype, "float32");
  EXPECT_EQ(ErrorOf(Load("v3-transformers5")), "");
  Json json = Load("v32-transformers5");
  json["mlp_layer_types"][0] = "sparse";
  ExpectNames(ErrorOf(json), "mlp_layer_types");
  json = Load("v32-transformers5");
  json["layer_types"][1] = "sliding_attention";
  ExpectNames(ErrorOf(json), "layer_types");
}

TEST(ModelConfig, NamesEachMissingField) {
  const Json whole = Load("v32");
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers", "num_attention_heads",
        "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "max_position_embeddings", "num_experts_per_tok",
        "first_k_dense_replace", "rms_norm_eps", "routed_scaling_factor", "model_type", "index_n_heads", "index_head_dim", "index_topk"}) {
    Json json = whole;
    json.erase(key);
    ExpectNames(ErrorOf(json), std::string(key) + " is missing");
  }
}

TEST(ModelConfig, NamesEachWrongSize) {
  const struct {
    const char* base;
    const char* key;
    Json value;
  } cases[] = {
      {"v3", "num_attention_heads", 0},
      {"v3", "num_hidden_layers", -3},
      {"v3", "num_hidden_layers", 1000000000},
      {"v3", "hidden_size", int64_t{1} << 40},
      {"v3", "num_experts_per_tok", 99},
      {"v3", "num_experts_per_tok", 9},
      {"v3", "n_group", 7},
      {"v3", "n_group", 0},
      {"v3", "topk_group", 5},
      {"v3", "n_group", 16},
      {"v3", "num_key_value_heads", 2},
      {"v3", "hidden_size", "64"},
      {"v3", "hidden_size", 64.5},
      {"v3", "hidden_size", true},
      {"v3", "hidden_size", 18446744073709551615ull},
      {"v3", "qk_rope_head_dim", 7},
      {"v3", "rms_norm_eps", 0.0},
      {"v3", "rope_theta", -1},
      {"v3", "num_nextn_predict_layers", -1},
      {"v32", "index_topk", 0},
      {"v32", "index_topk", 163841},
      {"v32", "index_head_dim", 4},
      {"v32", "q_lora_rank", nullptr},
      {"v3", "qk_head_dim", 25},
      {"v3", "vocab_size", 0},
      {"v3", "moe_layer_freq", 0},
      {"v3", "routed_scaling_factor", 0},
      {"v3", "max_position_embeddings", 0},
  };
  for (const auto& c : cases) {
    const std::string error = ErrorWith(c.base, c.key, c.value);
    ExpectNames(error, c.key == std::string("n_group") && c.value == 16 ? "group" : c.key);
    ExpectNames(error, "config.json");
    EXPECT_EQ(error.find('\n'), error.npos);
  }
}

// noaux_tc adds up the two best experts of a group.
TEST(ModelConfig, GroupsOfNoauxTcHoldTwoExperts) {
  Json json = Load("v3");
  json["n_group"] = 16;
  json["topk_group"] = 4;
  ExpectNames(ErrorOf(json), "each group needs two");
  json["n_group"] = 8;
  EXPECT_EQ(ErrorOf(json), "");
}

TEST(ModelConfig, RefusesOtherMathematics) {
  const struct {
    const char* key;
    Json value;
  } cases[] = {{"attention_bias", true},
               {"tie_word_embeddings", true},
               {"hidden_act", "gelu"},
               {"attention_dropout", 0.1},
               {"sliding_window", 4096},
               {"mlp_bias", true},
               {"rope_interleave", false},
               {"model_type", "llama"},
               {"architectures", {"LlamaForCausalLM"}},
               {"architectures", {"DeepseekV2ForCausalLM"}},
               {"topk_method", "expert_choice"},
               {"topk_method", "greedy"},
               {"scoring_func", "softmax"},
               {"scoring_func", "relu"},
               {"index_topk", 12},
               {"final_logit_softcapping", 30.0},
               {"rope_scaling", {{"type", "linear"}, {"factor", 2}}},
               {"rope_scaling", {{"type", "yarn"}, {"factor", 40}, {"original_max_position_embeddings", 4096}, {"attention_factor", 2}}},
               {"rope_scaling", {{"type", "yarn"}, {"original_max_position_embeddings", 4096}}},
               {"rope_scaling", "yarn"},
               {"rope_scaling", {{"type", "yarn"}, {"factor", 0.5}, {"original_max_position_embeddings", 4096}}},
               {"quantization_config", {{"quant_method", "gptq"}}},
               {"quantization_config", {{"quant_method", "fp8"}, {"fmt", "e5m2"}, {"weight_block_size", {128, 128}}}},
               {"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {64, 64}}}},
               {"quantization_config", {{"quant_method", "fp8"}}},
               {"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}, {"scale_fmt", "e5"}}}};
  for (const auto& c : cases) {
    const std::string error = ErrorWith("v3", c.key, c.value);
    EXPECT_NE(error, "") << c.key << '=' << c.value;
  }
  ExpectNames(ErrorWith("v3", "sliding_window", 4096), "sliding_window=4096");
}

TEST(ModelConfig, IgnoresWhatSaysNothing) {
  for (const Json& value : {Json(nullptr), Json(false), Json(""), Json::array(), Json::object()})
    EXPECT_EQ(ErrorWith("v3", "sliding_window", value), "");
  EXPECT_EQ(ErrorWith("v2-lite", "n_group", nullptr), "");
  EXPECT_EQ(ErrorWith("v3", "rope_scaling", nullptr), "");
  EXPECT_NE(ErrorOf(Json::array()), "");
  EXPECT_NE(ErrorOf(Json::object()), "");
}

// By the whole name that the error gives, inner fields too.
TEST(ModelConfig, TakesWhatItsOwnerVouchesFor) {
  const struct {
    const char *model, *pointer, *name;
  } cases[] = {
      {"v3", "/x", "x"}, {"v3", "/rope_scaling/x", "rope_scaling.x"}, {"v3-fp8", "/quantization_config/x", "quantization_config.x"}};
  for (const auto& c : cases) {
    Json json = Load(c.model);
    json[Json::json_pointer(c.pointer)] = 7;
    ExpectNames(ErrorOf(json), std::string("ignore_config_keys=[") + c.name + "]");
    EXPECT_NO_THROW(ParseModelConfig(json, "config.json", {c.name})) << c.name;
  }
  Json json = Load("v3");
  json["rope_scaling"]["x"] = 7;
  EXPECT_THROW(ParseModelConfig(json, "config.json", {"x"}), Error);
}

TEST(ModelConfig, TwoSpellingsMustSayTheSame) {
  const Json yarn = Load("v3")["rope_scaling"];
  Json parameters = yarn;
  parameters["rope_theta"] = 10000;
  EXPECT_EQ(ErrorWith("v3", "rope_parameters", parameters), "");
  EXPECT_EQ(ErrorWith("v3", "num_local_experts", Load("v3")["n_routed_experts"]), "");
  ExpectNames(ErrorWith("v3", "num_local_experts", 3), "num_local_experts is 3");
  parameters["rope_theta"] = 50000;
  ExpectNames(ErrorWith("v3", "rope_parameters", parameters), "rope_theta is 50000, allowed is 10000");
  parameters["rope_theta"] = 10000;
  parameters["factor"] = 8;
  ExpectNames(ErrorWith("v3", "rope_parameters", parameters), "what rope_scaling says");
  ExpectNames(ErrorWith("v3", "rope_parameters", {{"rope_type", "default"}}), "what rope_scaling says");
}

TEST(ModelConfig, SeveralTokensMayEndAnAnswer) {
  Json json = Load("v3");
  json["eos_token_id"] = {1, 7};
  const ModelConfig config = ParseModelConfig(json, "v3");
  EXPECT_EQ(config.eos_token_ids, (std::vector<int64_t>{1, 7}));
  EXPECT_EQ(ModelConfigToJson(config)["eos_token_id"], json["eos_token_id"]);
  EXPECT_NE(ErrorWith("v3", "eos_token_id", {1, "x"}), "");
}

TEST(ModelConfig, WritesWhatItReads) {
  for (const char* name : {"v2-lite", "v2", "v3", "v32", "v3-fp8", "v32-fp8", "v32-transformers5"}) {
    const ModelConfig config = ParseModelConfig(Load(name), name);
    ModelConfig bare = config;
    bare.raw = nullptr;
    const Json written = ModelConfigToJson(bare);
    EXPECT_EQ(ModelConfigToJson(ParseModelConfig(written, name)), written) << name;
    const ModelConfig again = ParseModelConfig(ModelConfigToJson(config), name);
    EXPECT_EQ(again.hidden_size, config.hidden_size);
    EXPECT_EQ(again.rope_scaling->mscale_all_dim, config.rope_scaling->mscale_all_dim);
    EXPECT_EQ(again.topk_method, config.topk_method);
    EXPECT_EQ(again.fp8, config.fp8);
  }
}

TEST(ModelConfig, KeepsFieldsWithoutEffect) {
  ModelConfig config = ParseModelConfig(Load("v3-fp8"), "v3-fp8");
  config.fp8 = false;
  const Json json = ModelConfigToJson(config);
  EXPECT_EQ(json["aux_loss_alpha"], 0.001);
  EXPECT_FALSE(json.contains("quantization_config"));
}

TEST(ModelConfig, CountsMoeLayers) {
  const ModelConfig v3 = ParseModelConfig(HubV31(), "hub");
  EXPECT_FALSE(v3.is_moe_layer(2));
  EXPECT_TRUE(v3.is_moe_layer(3));
}

TEST(ModelConfig, ReadsAFolder) {
  const TemporaryFolder folder;
  EXPECT_THROW(ReadModelConfig(folder.path()), Error);
  WriteFileAtomically(folder.path() / "config.json", Load("v3").dump());
  EXPECT_EQ(ReadModelConfig(folder.path()).vocab_size, 320);
  WriteFileAtomically(folder.path() / "config.json", "{");
  EXPECT_THROW(ReadModelConfig(folder.path()), Error);
  WriteFileAtomically(folder.path() / "config.json", std::string(200000, '['));
  EXPECT_THROW(ReadModelConfig(folder.path()), Error);
}

}  // namespace
}  // namespace fathom

#include "fathom/config/model_config.h"

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "fathom/config/json_fields.h"
#include "fathom/config/model_sizes.h"

namespace fathom {
namespace {

template <class T>
struct Word {
  const char* text;
  T value;
};
constexpr Word<ModelFamily> kFamilies[] = {
    {"deepseek_v2", ModelFamily::kV2}, {"deepseek_v3", ModelFamily::kV3}, {"deepseek_v32", ModelFamily::kV32}};
constexpr Word<ModelFamily> kArchitectures[] = {{"DeepseekV2ForCausalLM", ModelFamily::kV2},
                                                {"DeepseekV3ForCausalLM", ModelFamily::kV3},
                                                {"DeepseekV32ForCausalLM", ModelFamily::kV32}};
constexpr Word<TopkMethod> kTopkMethods[] = {
    {"greedy", TopkMethod::kGreedy}, {"group_limited_greedy", TopkMethod::kGroupLimitedGreedy}, {"noaux_tc", TopkMethod::kNoauxTc}};
constexpr Word<ScoringFunc> kScoringFuncs[] = {{"softmax", ScoringFunc::kSoftmax}, {"sigmoid", ScoringFunc::kSigmoid}};

// Fields of the official files (and of those that transformers writes) without an effect on the forward pass.
constexpr const char* kNoEffect[] = {"_name_or_path",
                                     "auto_map",
                                     "aux_loss_alpha",
                                     "chunk_size_feed_forward",
                                     "dtype",
                                     "ep_size",
                                     "head_dim",
                                     "id2label",
                                     "is_encoder_decoder",
                                     "label2id",
                                     "pad_token_id",
                                     "pretraining_tp",
                                     "return_dict",
                                     "seq_aux",
                                     "torch_dtype",
                                     "transformers_version",
                                     "use_cache",
                                     "output_attentions",
                                     "output_hidden_states",
                                     "output_router_logits",
                                     "problem_type"};

// Fields that fine-tuning tools and older versions of transformers add: their own notes, and how to decode, which is
// generation_config.json's to say.
constexpr const char* kOfTools[] = {"_attn_implementation_autoset",
                                    "_attn_implementation",
                                    "_experts_implementation",
                                    "attn_implementation",
                                    "unsloth_fixed",
                                    "unsloth_version",
                                    "tokenizer_class",
                                    "sep_token_id",
                                    "cls_token_id",
                                    "mask_token_id",
                                    "decoder_start_token_id",
                                    "forced_bos_token_id",
                                    "forced_eos_token_id",
                                    "prefix",
                                    "finetuning_task",
                                    "task_specific_params",
                                    "torchscript",
                                    "use_bfloat16",
                                    "tf_legacy_loss",
                                    "bad_words_ids",
                                    "begin_suppress_tokens",
                                    "suppress_tokens",
                                    "do_sample",
                                    "early_stopping",
                                    "max_length",
                                    "min_length",
                                    "max_new_tokens",
                                    "no_repeat_ngram_size",
                                    "encoder_no_repeat_ngram_size",
                                    "num_beams",
                                    "num_beam_groups",
                                    "num_return_sequences",
                                    "diversity_penalty",
                                    "length_penalty",
                                    "repetition_penalty",
                                    "output_scores",
                                    "remove_invalid_values",
                                    "return_dict_in_generate",
                                    "temperature",
                                    "top_k",
                                    "top_p",
                                    "typical_p",
                                    "exponential_decay_length_penalty",
                                    "gradient_checkpointing",
                                    "router_aux_loss_coef",
                                    "use_return_dict",
                                    "model_max_length",
                                    "generation_config",
                                    "keys_to_ignore_at_inference",
                                    "transformers.js_config"};

template <class T, size_t N>
T Lookup(JsonFields& fields, std::string_view name, const Word<T> (&words)[N]) {
  const std::string text = fields.String(name);
  std::string allowed;
  for (const Word<T>& word : words) {
    if (text == word.text) return word.value;
    allowed += (allowed.empty() ? "" : ", ") + std::string(word.text);
  }
  fields.Wrong(name, allowed);
}

template <class T, size_t N>
const char* WordOf(const Word<T> (&words)[N], T value) {
  return std::find_if(std::begin(words), std::end(words), [&](const Word<T>& word) { return word.value == value; })->text;
}

ModelFamily ReadFamily(JsonFields& fields) {
  const ModelFamily family = Lookup(fields, "model_type", kFamilies);
  if (!fields.Has("architectures")) return family;
  const Json expected = Json::array({WordOf(kArchitectures, family)});
  if (fields.Any("architectures") != expected) fields.Wrong("architectures", expected.dump() + " for this model_type");
  return family;
}

void ReadSizes(JsonFields& fields, ModelConfig& config) {
  config.n_routed_experts = fields.Int("n_routed_experts", 0);
  if (fields.Int("num_local_experts", config.n_routed_experts) != config.n_routed_experts)
    fields.Wrong("num_local_experts", fmt::format("n_routed_experts ({}), which is another name of it", config.n_routed_experts));
  for (const ModelSize& size : ModelSizes()) {
    const bool required = size.kind == SizeKind::kAlways || (size.kind == SizeKind::kMoe && config.n_routed_experts > 0) ||
                          (size.kind == SizeKind::kIndexer && config.family == ModelFamily::kV32);
    if (size.kind == SizeKind::kIndexer && !required) continue;  // left unread: an indexer in another family is not understood
    config.*size.field = required ? fields.Int(size.name) : fields.Int(size.name, config.*size.field);
  }
}

// The defaults are those of the family's config class in transformers.
void ReadRouting(JsonFields& fields, ModelConfig& config) {
  const bool v2 = config.family == ModelFamily::kV2;
  config.topk_method = v2 ? TopkMethod::kGreedy : TopkMethod::kNoauxTc;
  config.scoring_func = v2 ? ScoringFunc::kSoftmax : ScoringFunc::kSigmoid;
  if (fields.Has("topk_method")) config.topk_method = Lookup(fields, "topk_method", kTopkMethods);
  if (fields.Has("scoring_func")) config.scoring_func = Lookup(fields, "scoring_func", kScoringFuncs);
  config.norm_topk_prob = fields.Bool("norm_topk_prob", !v2);
  config.routed_scaling_factor =
      v2 || config.n_routed_experts == 0 ? fields.Double("routed_scaling_factor", 1) : fields.Double("routed_scaling_factor");
}

void CheckRopeType(JsonFields& rope, const char* key) {
  if (rope.Has(key) && rope.String(key) != "yarn") rope.Wrong(key, "yarn");
}

RopeScaling ReadYarn(JsonFields& rope) {
  CheckRopeType(rope, "type");
  CheckRopeType(rope, "rope_type");
  RopeScaling yarn;
  yarn.factor = rope.Double("factor");
  yarn.original_max_position_embeddings = rope.Int("original_max_position_embeddings");
  yarn.beta_fast = rope.Double("beta_fast", yarn.beta_fast);
  yarn.beta_slow = rope.Double("beta_slow", yarn.beta_slow);
  yarn.mscale = rope.Double("mscale", yarn.mscale);
  yarn.mscale_all_dim = rope.Double("mscale_all_dim", yarn.mscale_all_dim);
  if (!rope.Bool("truncate", true)) rope.Wrong("truncate", "true");
  return yarn;
}

bool SaysDefault(JsonFields& rope) {
  return rope.String("rope_type", "") == "default" || rope.String("type", "") == "default" || (!rope.Has("type") && !rope.Has("rope_type"));
}

bool SameScaling(const std::optional<RopeScaling>& a, const std::optional<RopeScaling>& b) {
  if (!a || !b) return !a && !b;
  const auto fields = [](const RopeScaling& x) {
    return std::tie(x.factor, x.beta_fast, x.beta_slow, x.mscale, x.mscale_all_dim, x.original_max_position_embeddings);
  };
  return fields(*a) == fields(*b);
}

// Until transformers 4: rope_theta and rope_scaling; from 5: both in rope_parameters. A file with both spellings must say the same twice.
void ReadRope(JsonFields& fields, const std::vector<std::string>& ignore_keys, ModelConfig& config) {
  bool theta_given = fields.Has("rope_theta");
  config.rope_theta = fields.Double("rope_theta", config.rope_theta);
  for (const std::string name : {"rope_scaling", "rope_parameters"}) {
    if (!fields.Has(name)) continue;
    JsonFields rope = fields.Inner(name);
    const double theta = rope.Double("rope_theta", config.rope_theta);
    if (theta_given && theta != config.rope_theta) rope.Wrong("rope_theta", fmt::format("{}, which stands elsewhere", config.rope_theta));
    theta_given |= rope.Has("rope_theta");
    config.rope_theta = theta;
    const auto scaling = SaysDefault(rope) ? std::nullopt : std::optional(ReadYarn(rope));
    if (name == "rope_parameters" && fields.Has("rope_scaling") && !SameScaling(scaling, config.rope_scaling))
      fields.Wrong(name, "what rope_scaling says");
    config.rope_scaling = scaling;
    rope.CheckAllRead(ignore_keys);
  }
  if (!fields.Bool("rope_interleave", true)) fields.Wrong("rope_interleave", "true");
}

void ReadQuantization(JsonFields& fields, const std::vector<std::string>& ignore_keys, ModelConfig& config) {
  if (!fields.Has("quantization_config")) return;
  JsonFields fp8 = fields.Inner("quantization_config");
  if (fp8.String("quant_method") != "fp8") fp8.Wrong("quant_method", "fp8");
  if (fp8.String("fmt", "e4m3") != "e4m3") fp8.Wrong("fmt", "e4m3");
  if (fp8.Any("weight_block_size") != Json::array({128, 128})) fp8.Wrong("weight_block_size", "[128, 128]");
  const std::string scales = fp8.String("scale_fmt", "float32");
  if (scales != "float32" && scales != "ue8m0") fp8.Wrong("scale_fmt", "float32 or ue8m0");
  // How activations are quantised does not concern weights; which modules are not FP8 is seen in the files.
  for (const char* name : {"activation_scheme", "modules_to_not_convert", "ignored_layers"}) fp8.Ignore(name);
  fp8.CheckAllRead(ignore_keys);
  config.fp8 = true;
  config.scale_ue8m0 = scales == "ue8m0";
}

// Variants that other models have and DeepSeek's don't.
void CheckVariants(JsonFields& fields, const ModelConfig& config) {
  for (const char* name : {"attention_bias", "mlp_bias", "tie_word_embeddings"}) {
    if (fields.Bool(name, false)) fields.Wrong(name, "false");
  }
  if (fields.String("hidden_act", "silu") != "silu") fields.Wrong("hidden_act", "silu");
  if (fields.Double("attention_dropout", 0) != 0) fields.Wrong("attention_dropout", "0");
  if (fields.Int("num_key_value_heads", config.num_attention_heads) != config.num_attention_heads) {
    fields.Wrong("num_key_value_heads", fmt::format("num_attention_heads ({})", config.num_attention_heads));
  }
  if (fields.Int("qk_head_dim", config.qk_head_dim()) != config.qk_head_dim()) {
    fields.Wrong("qk_head_dim", fmt::format("qk_nope_head_dim + qk_rope_head_dim ({})", config.qk_head_dim()));
  }
}

// transformers 5 lists every layer's kind; the list must say what the counts say.
void CheckLayerKinds(JsonFields& fields, const ModelConfig& config) {
  const auto count = static_cast<size_t>(config.num_hidden_layers);
  if (fields.Has("layer_types")) {
    const Json expected(std::vector<std::string>(count, config.has_indexer() ? "indexed_attention" : "full_attention"));
    if (fields.Any("layer_types") != expected) fields.Wrong("layer_types", fmt::format("{} times {}", count, expected[0].dump()));
  }
  if (!fields.Has("mlp_layer_types")) return;
  std::vector<std::string> expected;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) expected.push_back(config.is_moe_layer(layer) ? "sparse" : "dense");
  if (fields.Any("mlp_layer_types") != Json(expected)) fields.Wrong("mlp_layer_types", "what first_k_dense_replace and moe_layer_freq say");
}

void ReadTheRest(JsonFields& fields, ModelConfig& config) {
  config.rms_norm_eps = fields.Double("rms_norm_eps");
  config.initializer_range = fields.Double("initializer_range", config.initializer_range);
  config.torch_dtype = fields.String("dtype", fields.String("torch_dtype", config.torch_dtype));  // as transformers 5 prefers
  if (fields.Has("bos_token_id")) config.bos_token_id = fields.Ids("bos_token_id")[0];
  if (fields.Has("eos_token_id")) config.eos_token_ids = fields.Ids("eos_token_id");
  for (const char* name : kNoEffect) fields.Ignore(name);
  for (const char* name : kOfTools) fields.Ignore(name);
}

Json YarnToJson(const RopeScaling& yarn) {
  return {{"type", "yarn"},
          {"factor", yarn.factor},
          {"original_max_position_embeddings", yarn.original_max_position_embeddings},
          {"beta_fast", yarn.beta_fast},
          {"beta_slow", yarn.beta_slow},
          {"mscale", yarn.mscale},
          {"mscale_all_dim", yarn.mscale_all_dim}};
}

void SetQuantization(const ModelConfig& config, Json& json) {
  if (!config.fp8) {
    json.erase("quantization_config");
    return;
  }
  Json& fp8 = json["quantization_config"];
  if (!fp8.is_object())
    fp8 = {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"}, {"weight_block_size", {128, 128}}};
  if (config.scale_ue8m0) fp8["scale_fmt"] = "ue8m0";
  if (!config.scale_ue8m0) fp8.erase("scale_fmt");
}

void SetSizes(const ModelConfig& config, Json& json) {
  for (const ModelSize& size : ModelSizes()) {
    if (size.kind == SizeKind::kIndexer && !config.has_indexer()) continue;
    json[size.name] = config.*size.field;
  }
  if (config.q_lora_rank == 0) json["q_lora_rank"] = nullptr;
  if (config.n_routed_experts == 0) json["n_routed_experts"] = nullptr;
  if (config.n_shared_experts == 0) json["n_shared_experts"] = nullptr;
  json["num_key_value_heads"] = config.num_attention_heads;
}

}  // namespace

void SetStoredDType(const std::string& name, Json& config_json) { config_json["dtype"] = config_json["torch_dtype"] = name; }

const char* ModelTypeName(ModelFamily family) { return WordOf(kFamilies, family); }

ModelConfig ParseModelConfig(const Json& json, const std::string& where, const std::vector<std::string>& ignore_keys) {
  JsonFields fields(json, where);
  ModelConfig config;
  config.family = ReadFamily(fields);
  ReadSizes(fields, config);
  ReadRouting(fields, config);
  ReadRope(fields, ignore_keys, config);
  ReadQuantization(fields, ignore_keys, config);
  ReadTheRest(fields, config);
  CheckModelConfig(config, where);
  CheckVariants(fields, config);
  CheckLayerKinds(fields, config);
  fields.CheckAllRead(ignore_keys);
  config.raw = json;
  return config;
}

ModelConfig ReadModelConfig(const std::filesystem::path& checkpoint_dir, const std::vector<std::string>& ignore_keys) {
  const std::filesystem::path path = checkpoint_dir / "config.json";
  return ParseModelConfig(ReadJsonFile(path), path.string(), ignore_keys);
}

Json ModelConfigToJson(const ModelConfig& config) {
  Json json = config.raw.is_object() ? config.raw : Json::object();
  json["architectures"] = {WordOf(kArchitectures, config.family)};
  json["model_type"] = ModelTypeName(config.family);
  SetSizes(config, json);
  json["topk_method"] = WordOf(kTopkMethods, config.topk_method);
  json["scoring_func"] = WordOf(kScoringFuncs, config.scoring_func);
  json["norm_topk_prob"] = config.norm_topk_prob;
  json["routed_scaling_factor"] = config.routed_scaling_factor;
  json["rms_norm_eps"] = config.rms_norm_eps;
  json["rope_theta"] = config.rope_theta;
  json.erase("rope_parameters");
  json["rope_scaling"] = config.rope_scaling ? YarnToJson(*config.rope_scaling) : Json(nullptr);
  json["bos_token_id"] = config.bos_token_id;
  json["eos_token_id"] = config.eos_token_ids.size() == 1 ? Json(config.eos_token_ids[0]) : Json(config.eos_token_ids);
  json["initializer_range"] = config.initializer_range;
  SetStoredDType(config.torch_dtype, json);
  json["hidden_act"] = "silu";
  json["attention_bias"] = false;
  json["attention_dropout"] = 0.0;
  json["tie_word_embeddings"] = false;
  json["use_cache"] = true;
  SetQuantization(config, json);
  return json;
}

}  // namespace fathom

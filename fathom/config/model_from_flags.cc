#include "fathom/config/model_from_flags.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <bit>

#include "fathom/config/model_sizes.h"

namespace fathom {
namespace {

// MaxText spreads log2 of global_parameter_scale over width, heads and MLP widths, and layers; the remainder of the division by three goes
// to heads and MLP first, then to the width.
struct Scales {
  int64_t none = 1, width, heads, layers;
};
Scales ScalesOf(int64_t global_parameter_scale) {
  const int log = std::countr_zero(static_cast<uint64_t>(global_parameter_scale));
  const int third = log / 3, rest = log % 3;
  return {.width = int64_t{1} << (third + (rest > 1)), .heads = int64_t{1} << (third + (rest > 0)), .layers = int64_t{1} << third};
}

// The sizes that a flag gives as they stand, or times a scale.
struct SizeFlag {
  const char* name;
  int64_t ModelConfig::*field;
  int64_t Scales::*scale = &Scales::none;
};
constexpr SizeFlag kSizeFlags[] = {{"vocab_size", &ModelConfig::vocab_size},
                                   {"base_emb_dim", &ModelConfig::hidden_size, &Scales::width},
                                   {"base_mlp_dim", &ModelConfig::intermediate_size, &Scales::heads},
                                   {"base_moe_mlp_dim", &ModelConfig::moe_intermediate_size, &Scales::heads},
                                   {"base_num_query_heads", &ModelConfig::num_attention_heads, &Scales::heads},
                                   {"base_num_decoder_layers", &ModelConfig::num_hidden_layers, &Scales::layers},
                                   {"first_num_dense_layers", &ModelConfig::first_k_dense_replace},
                                   {"q_lora_rank", &ModelConfig::q_lora_rank},
                                   {"kv_lora_rank", &ModelConfig::kv_lora_rank},
                                   {"qk_nope_head_dim", &ModelConfig::qk_nope_head_dim},
                                   {"qk_rope_head_dim", &ModelConfig::qk_rope_head_dim},
                                   {"v_head_dim", &ModelConfig::v_head_dim},
                                   {"num_experts", &ModelConfig::n_routed_experts},
                                   {"num_experts_per_tok", &ModelConfig::num_experts_per_tok},
                                   {"shared_experts", &ModelConfig::n_shared_experts}};

// A product of sizes that are out of range anyway must not overflow.
int64_t Times(const RunConfig& config, const char* key, int64_t scale) {
  int64_t product = 0;
  if (__builtin_mul_overflow(config.Int(key), scale, &product)) Throw(ErrorCode::kUsage, "{}={} is too large", key, config.Int(key));
  return product;
}

// One expert stands for none.
int64_t SizeOf(const RunConfig& config, const SizeFlag& flag) {
  if (flag.field == &ModelConfig::n_routed_experts && config.Int(flag.name) == 1) return 0;
  return Times(config, flag.name, ScalesOf(config.Int("global_parameter_scale")).*flag.scale);
}

void SetRouting(const RunConfig& config, ModelConfig& model) {
  const bool sigmoid = config.String("routed_score_func") == "sigmoid";
  const int64_t groups = config.Int("n_routing_groups"), kept = config.Int("topk_routing_group");
  model.n_group = groups == -1 ? 1 : groups;
  model.topk_group = kept == -1 ? model.n_group : kept;
  model.routed_scaling_factor = config.Float("routed_scaling_factor");
  model.norm_topk_prob = sigmoid;
  model.scoring_func = sigmoid ? ScoringFunc::kSigmoid : ScoringFunc::kSoftmax;
  model.topk_method = sigmoid ? TopkMethod::kNoauxTc : model.n_group > 1 ? TopkMethod::kGroupLimitedGreedy : TopkMethod::kGreedy;
  if (model.n_routed_experts > 0 && sigmoid != config.Bool("routed_bias")) {
    Throw(ErrorCode::kUsage,
          "routed_score_func and routed_bias don't fit: sigmoid goes with routed_bias=true, softmax with routed_bias=false");
  }
}

void SetRope(const RunConfig& config, ModelConfig& model) {
  model.rope_theta = config.Float("rope_max_timescale");
  model.max_position_embeddings = config.Int("max_position_embeddings");
  if (config.String("rope_type") != "yarn") return;
  model.rope_scaling = RopeScaling{.factor = config.Float("rope_factor"),
                                   .beta_fast = config.Float("beta_fast"),
                                   .beta_slow = config.Float("beta_slow"),
                                   .mscale = config.Float("mscale"),
                                   .mscale_all_dim = config.Float("mscale"),
                                   .original_max_position_embeddings = config.Int("original_max_position_embeddings")};
}

void SetIndexer(const RunConfig& config, ModelConfig& model) {
  model.index_n_heads = config.Int("indexer_n_heads");
  model.index_head_dim = config.Int("indexer_head_dim");
  model.index_topk = config.Int("indexer_topk");
}

ModelFamily FamilyOf(const RunConfig& config) {
  if (config.Bool("use_indexer")) return ModelFamily::kV32;
  return config.String("routed_score_func") == "sigmoid" ? ModelFamily::kV3 : ModelFamily::kV2;
}

void CheckVariants(const RunConfig& config) {
  const int64_t query = config.Int("base_num_query_heads"), kv = config.Int("base_num_kv_heads");
  if (query != kv) Throw(ErrorCode::kUsage, "base_num_kv_heads={}: MLA has as many as base_num_query_heads ({})", kv, query);
  if (config.Bool("logits_via_embedding"))
    Throw(ErrorCode::kUsage, "logits_via_embedding=true: DeepSeek's models have a head of their own");
  if (config.Strings("mlp_activations") != std::vector<std::string>{"silu", "linear"}) {
    Throw(ErrorCode::kUsage, "mlp_activations: allowed is [silu,linear] (SwiGLU)");
  }
}

bool NamesModel(const RunConfig& config) { return !config.String("model_name").empty() && config.String("model_name") != "default"; }

// A flag that describes another model than the one that was read.
struct Difference {
  std::string flag, asked, found;
};

// A flag that is a number of the model as it stands.
struct NumberFlag {
  const char* name;
  double found;
};

std::vector<NumberFlag> NumberFlags(const ModelConfig& model) {
  std::vector<NumberFlag> flags = {{"routed_scaling_factor", model.routed_scaling_factor},
                                   {"rope_max_timescale", model.rope_theta},
                                   {"max_position_embeddings", static_cast<double>(model.max_position_embeddings)},
                                   {"normalization_layer_epsilon", model.rms_norm_eps},
                                   {"initializer_range", model.initializer_range},
                                   {"bos_token_id", static_cast<double>(model.bos_token_id)}};
  if (model.has_indexer()) {
    flags.insert(flags.end(), {{"indexer_n_heads", static_cast<double>(model.index_n_heads)},
                               {"indexer_head_dim", static_cast<double>(model.index_head_dim)},
                               {"indexer_topk", static_cast<double>(model.index_topk)}});
  }
  if (model.rope_scaling) {
    const RopeScaling& rope = *model.rope_scaling;
    flags.insert(flags.end(), {{"rope_factor", rope.factor},
                               {"beta_fast", rope.beta_fast},
                               {"beta_slow", rope.beta_slow},
                               {"mscale", rope.mscale},
                               {"original_max_position_embeddings", static_cast<double>(rope.original_max_position_embeddings)}});
  }
  return flags;
}

// Whether the flags' groups, kept groups and RoPE type are the model's.
void AddRoutingAndRope(const RunConfig& config, const ModelConfig& model, std::vector<Difference>& all) {
  const int64_t groups = config.Int("n_routing_groups") == -1 ? 1 : config.Int("n_routing_groups");
  const int64_t kept = config.Int("topk_routing_group") == -1 ? groups : config.Int("topk_routing_group");
  if (groups != model.n_group) all.push_back({"n_routing_groups", fmt::format("{}", groups), fmt::format("{}", model.n_group)});
  if (kept != model.topk_group) all.push_back({"topk_routing_group", fmt::format("{}", kept), fmt::format("{}", model.topk_group)});
  const std::string rope = model.rope_scaling ? "yarn" : "default";
  if (config.String("rope_type") != rope) all.push_back({"rope_type", config.String("rope_type"), rope});
}

// The flags, given or from a model's file, that are not what the model has. MTP modules may be trained without being there.
std::vector<Difference> Differing(const RunConfig& config, const ModelConfig& model) {
  std::vector<Difference> all;
  for (const SizeFlag& flag : kSizeFlags) {
    const int64_t asked = SizeOf(config, flag), found = model.*flag.field;
    if (asked != found) all.push_back({flag.name, fmt::format("{}", asked), fmt::format("{}", found)});
  }
  for (const NumberFlag& flag : NumberFlags(model)) {
    const double asked = config.Float(flag.name);
    if (asked != flag.found) all.push_back({flag.name, fmt::format("{}", asked), fmt::format("{}", flag.found)});
  }
  AddRoutingAndRope(config, model, all);
  return all;
}

// The family is not among a model's numbers; an indexer or a bias may be trained without being there.
void AddFamily(const RunConfig& config, const ModelConfig& model, std::vector<Difference>& all) {
  const auto add = [&](const char* flag, bool asked, bool found) {
    if (asked != found) all.push_back({flag, asked ? "true" : "false", found ? "true" : "false"});
  };
  const bool sigmoid = model.scoring_func == ScoringFunc::kSigmoid;
  add("use_indexer", config.Bool("use_indexer"), model.has_indexer());
  add("routed_bias", config.Bool("routed_bias"), model.topk_method == TopkMethod::kNoauxTc);
  if ((config.String("routed_score_func") == "sigmoid") != sigmoid)
    all.push_back({"routed_score_func", config.String("routed_score_func"), sigmoid ? "sigmoid" : "softmax"});
}

// They are not of the network.
bool IsOfFreshWeightsOrText(const std::string& flag) { return flag == "initializer_range" || flag == "bos_token_id"; }

// Without its loss an indexer has no gradient, whatever the mask says.
void CheckIndexerTraining(const RunConfig& config, const ModelConfig& model) {
  const double factor = config.Float("indexer_loss_scaling_factor");
  if (factor > 0 && !model.has_indexer()) Throw(ErrorCode::kUsage, "indexer_loss_scaling_factor={}: this model has no indexer", factor);
  for (const std::string& pattern : config.Strings("trainable_parameters_mask")) {
    if (pattern.find("indexer") != pattern.npos && model.has_indexer() && factor == 0) {
      Throw(ErrorCode::kUsage,
            "trainable_parameters_mask: \"{}\": indexers train only with indexer_loss_scaling_factor above 0, such as 0.01", pattern);
    }
  }
}

}  // namespace

std::vector<std::string> ModelFlags() {
  return {"vocab_size",
          "base_emb_dim",
          "base_num_query_heads",
          "base_num_kv_heads",
          "base_mlp_dim",
          "base_moe_mlp_dim",
          "base_num_decoder_layers",
          "first_num_dense_layers",
          "global_parameter_scale",
          "q_lora_rank",
          "kv_lora_rank",
          "qk_nope_head_dim",
          "qk_rope_head_dim",
          "v_head_dim",
          "num_experts",
          "num_experts_per_tok",
          "shared_experts",
          "routed_scaling_factor",
          "routed_score_func",
          "routed_bias",
          "n_routing_groups",
          "topk_routing_group",
          "use_indexer",
          "indexer_n_heads",
          "indexer_head_dim",
          "indexer_topk",
          "rope_type",
          "rope_max_timescale",
          "max_position_embeddings",
          "original_max_position_embeddings",
          "rope_factor",
          "beta_fast",
          "beta_slow",
          "mscale",
          "normalization_layer_epsilon",
          "mtp_num_layers",
          "mlp_activations",
          "logits_via_embedding",
          "bos_token_id",
          "eos_token_id",
          "initializer_range"};
}

std::function<ModelConfig()> DescribedModel(const RunConfig& config) {
  if (!NamesModel(config) && !config.Given("base_emb_dim")) return {};
  return [&config] { return ModelFromFlags(config); };
}

ModelConfig ModelFromFlags(const RunConfig& config) {
  CheckVariants(config);
  ModelConfig model;
  model.family = FamilyOf(config);
  for (const SizeFlag& flag : kSizeFlags) model.*flag.field = SizeOf(config, flag);
  model.num_nextn_predict_layers = config.Int("mtp_num_layers");
  SetRouting(config, model);
  SetRope(config, model);
  if (config.Bool("use_indexer")) SetIndexer(config, model);
  model.rms_norm_eps = config.Float("normalization_layer_epsilon");
  model.initializer_range = config.Float("initializer_range");
  model.bos_token_id = config.Int("bos_token_id");
  model.eos_token_ids = {config.Int("eos_token_id")};
  model.torch_dtype = config.String("weight_dtype");
  CheckModelConfig(model, "the model that the flags describe", ErrorCode::kUsage);
  return model;
}

void CheckModelName(const RunConfig& config, const ModelConfig& model, const std::string& where) {
  std::vector<std::string> off;
  if (NamesModel(config)) {
    const ModelFamily named = FamilyOf(config);
    if (named != model.family) {
      Throw(ErrorCode::kUsage, "model_name={} is a {}, but {} says {}: leave model_name out or name another", config.String("model_name"),
            ModelTypeName(named), where, ModelTypeName(model.family));
    }
  }
  const auto differing = Differing(config, model);
  std::vector<std::string> of_model;
  for (const Difference& d : differing) {
    const std::string text = fmt::format("{}={} ({})", d.flag, d.asked, d.found);
    (config.Given(d.flag) ? off : of_model).push_back(text);
  }
  if (NamesModel(config) && config.Given("model_name") && !of_model.empty())
    off.insert(off.begin(), fmt::format("model_name={} with {}", config.String("model_name"), fmt::join(of_model, ", ")));
  if (!off.empty()) spdlog::warn("{} decides on the model, which differs from what was given: {}", where, fmt::join(off, "; "));
}

void CheckGivenSizes(const RunConfig& config, const ModelConfig& model, const std::string& where) {
  for (const SizeFlag& flag : kSizeFlags) {
    if (!config.Given(flag.name) || SizeOf(config, flag) == model.*flag.field) continue;
    Throw(ErrorCode::kUsage,
          "{}={} is given, but {} has {}: leave the flag out, or start from another checkpoint (run_name, load_parameters_path)", flag.name,
          config.Int(flag.name), where, model.*flag.field);
  }
}

void FollowGivenFlags(const RunConfig& config, ModelConfig& model, const std::string& where) {
  const bool may_override = config.Bool("override_model_config");
  if (config.Given("indexer_topk") && config.Int("indexer_topk") <= 0)
    Throw(ErrorCode::kUsage, "indexer_topk={}: allowed is 1 or more", config.Int("indexer_topk"));
  if (may_override && config.Given("indexer_topk") && model.has_indexer()) model.index_topk = config.Int("indexer_topk");
  std::vector<Difference> all = Differing(config, model);
  AddFamily(config, model, all);
  for (const Difference& d : all) {
    if (!config.Given(d.flag) || IsOfFreshWeightsOrText(d.flag)) continue;
    Throw(ErrorCode::kUsage, "{}={} is given, but {} has {}: {}", d.flag, d.asked, where, d.found,
          d.flag == "indexer_topk" ? "give override_model_config=true, too, or leave the flag out"
                                   : "a checkpoint's model is used as it is; leave the flag out");
  }
}

void AddIndexer(const RunConfig& config, ModelConfig& model) {
  model.family = ModelFamily::kV32;
  SetIndexer(config, model);
  model.raw = ModelConfigToJson(model);
}

void CheckTrainingFlags(const RunConfig& config, const ModelConfig& model) {
  const int64_t length = config.Int("max_target_length");
  if (length > model.max_position_embeddings) {
    Throw(ErrorCode::kUsage, "max_target_length={} is beyond the model's max_position_embeddings ({})", length,
          model.max_position_embeddings);
  }
  if (config.Float("routed_bias_update_rate") > 0 && model.topk_method != TopkMethod::kNoauxTc) {
    Throw(ErrorCode::kUsage, "routed_bias_update_rate={}: only models with a routing bias (noaux_tc) have what it updates",
          config.Float("routed_bias_update_rate"));
  }
  CheckIndexerTraining(config, model);
}

}  // namespace fathom

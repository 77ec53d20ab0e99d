#include <string>

#include "fathom/config/model_sizes.h"

namespace fathom {
namespace {

using M = ModelConfig;
constexpr int64_t kMaxWidth = int64_t{1} << 20, kMaxCount = int64_t{1} << 16, kMaxContext = int64_t{1} << 31;
constexpr int64_t kMaxLayers = 10000, kMaxMtp = 64;

constexpr ModelSize kSizes[] = {
    {"vocab_size", &M::vocab_size, SizeKind::kAlways, 1, int64_t{1} << 24},
    {"hidden_size", &M::hidden_size, SizeKind::kAlways, 1, kMaxWidth},
    {"intermediate_size", &M::intermediate_size, SizeKind::kAlways, 1, kMaxWidth},
    {"num_hidden_layers", &M::num_hidden_layers, SizeKind::kAlways, 1, kMaxLayers},
    {"num_attention_heads", &M::num_attention_heads, SizeKind::kAlways, 1, kMaxCount},
    {"q_lora_rank", &M::q_lora_rank, SizeKind::kOptional, 0, kMaxWidth},
    {"kv_lora_rank", &M::kv_lora_rank, SizeKind::kAlways, 1, kMaxWidth},
    {"qk_nope_head_dim", &M::qk_nope_head_dim, SizeKind::kAlways, 1, kMaxCount},
    {"qk_rope_head_dim", &M::qk_rope_head_dim, SizeKind::kAlways, 2, kMaxCount},
    {"v_head_dim", &M::v_head_dim, SizeKind::kAlways, 1, kMaxCount},
    {"max_position_embeddings", &M::max_position_embeddings, SizeKind::kAlways, 1, kMaxContext},
    {"n_routed_experts", &M::n_routed_experts, SizeKind::kOptional, 0, kMostExperts},
    {"num_experts_per_tok", &M::num_experts_per_tok, SizeKind::kMoe, 1, kMostExperts},
    {"moe_intermediate_size", &M::moe_intermediate_size, SizeKind::kMoe, 1, kMaxWidth},
    {"first_k_dense_replace", &M::first_k_dense_replace, SizeKind::kMoe, 0, kMaxLayers},
    {"n_shared_experts", &M::n_shared_experts, SizeKind::kOptional, 0, kMaxCount},
    {"moe_layer_freq", &M::moe_layer_freq, SizeKind::kOptional, 1, kMaxLayers},
    {"n_group", &M::n_group, SizeKind::kOptional, 1, kMaxCount},
    {"topk_group", &M::topk_group, SizeKind::kOptional, 1, kMaxCount},
    {"num_nextn_predict_layers", &M::num_nextn_predict_layers, SizeKind::kOptional, 0, kMaxMtp},
    {"index_n_heads", &M::index_n_heads, SizeKind::kIndexer, 1, kMaxCount},
    {"index_head_dim", &M::index_head_dim, SizeKind::kIndexer, 1, kMaxCount},
    {"index_topk", &M::index_topk, SizeKind::kIndexer, 1, kMaxContext},
};

class Checker {
 public:
  Checker(const ModelConfig& config, const std::string& where, ErrorCode code) : config_(config), where_(where), code_(code) {}

  void Check() const {
    CheckSizes();
    CheckNumbers();
    CheckAttention();
    if (config_.n_routed_experts > 0) CheckRouting();
  }

 private:
  void Require(bool holds, const std::string& message) const {
    if (!holds) throw Error(code_, where_ + ": " + message);
  }

  void CheckSizes() const {
    for (const ModelSize& size : kSizes) {
      if (size.kind == SizeKind::kMoe && config_.n_routed_experts == 0) continue;
      if (size.kind == SizeKind::kIndexer && config_.family != ModelFamily::kV32) continue;
      const int64_t found = config_.*size.field;
      Require(found >= size.low && found <= size.high, fmt::format("{} is {}, allowed is {} to {}", size.name, found, size.low, size.high));
    }
  }

  // A comparison that NaN fails.
  void CheckNumbers() const {
    Require(config_.rms_norm_eps > 0 && config_.rms_norm_eps < 1,
            fmt::format("rms_norm_eps is {}, allowed is above 0 and below 1", config_.rms_norm_eps));
    Require(config_.rope_theta > 1, fmt::format("rope_theta is {}, allowed is above 1", config_.rope_theta));
    Require(config_.routed_scaling_factor > 0,
            fmt::format("routed_scaling_factor is {}, allowed is above 0", config_.routed_scaling_factor));
    Require(config_.initializer_range >= 0, fmt::format("initializer_range is {}, allowed is from 0", config_.initializer_range));
    if (!config_.rope_scaling) return;
    const RopeScaling& yarn = *config_.rope_scaling;
    Require(yarn.factor >= 1, fmt::format("rope_scaling.factor is {}, allowed is from 1", yarn.factor));
    Require(yarn.original_max_position_embeddings >= 1 && yarn.original_max_position_embeddings <= kMaxContext,
            fmt::format("rope_scaling.original_max_position_embeddings is {}, allowed is 1 to {}", yarn.original_max_position_embeddings,
                        kMaxContext));
    Require(yarn.beta_slow > 0 && yarn.beta_fast >= yarn.beta_slow,
            fmt::format("rope_scaling.beta_fast is {} and beta_slow {}, allowed is beta_fast >= beta_slow > 0", yarn.beta_fast,
                        yarn.beta_slow));
    Require(yarn.mscale >= 0 && yarn.mscale_all_dim >= 0, "rope_scaling.mscale and mscale_all_dim must not be negative");
  }

  void CheckAttention() const {
    Require(config_.qk_rope_head_dim % 2 == 0, fmt::format("qk_rope_head_dim is {}, allowed is an even number", config_.qk_rope_head_dim));
    if (config_.family != ModelFamily::kV32) return;
    Require(config_.q_lora_rank > 0, "the indexer reads the query's latent, so q_lora_rank must be above 0");
    Require(config_.index_head_dim >= config_.qk_rope_head_dim,
            fmt::format("index_head_dim is {}, allowed is from qk_rope_head_dim ({})", config_.index_head_dim, config_.qk_rope_head_dim));
    Require(config_.index_topk <= config_.max_position_embeddings,
            fmt::format("index_topk is {}, allowed is up to max_position_embeddings ({})", config_.index_topk,
                        config_.max_position_embeddings));
  }

  void CheckRouting() const {
    const int64_t experts = config_.n_routed_experts, chosen = config_.num_experts_per_tok;
    Require(chosen <= experts, fmt::format("num_experts_per_tok is {}, allowed is up to n_routed_experts ({})", chosen, experts));
    Require(experts % config_.n_group == 0,
            fmt::format("n_group is {}, which does not divide n_routed_experts ({})", config_.n_group, experts));
    Require(config_.topk_group <= config_.n_group,
            fmt::format("topk_group is {}, allowed is up to n_group ({})", config_.topk_group, config_.n_group));
    const bool sigmoid = config_.scoring_func == ScoringFunc::kSigmoid;
    Require(sigmoid == (config_.topk_method == TopkMethod::kNoauxTc),
            "scoring_func and topk_method don't fit: sigmoid goes with noaux_tc, softmax with greedy or group_limited_greedy");
    if (config_.topk_method == TopkMethod::kGreedy) return;
    const int64_t group = experts / config_.n_group, eligible = group * config_.topk_group;
    Require(chosen <= eligible,
            fmt::format("num_experts_per_tok is {}, but topk_group leaves only {} experts to choose from", chosen, eligible));
    Require(!sigmoid || config_.n_group == 1 || group >= 2, "noaux_tc scores a group by its two best experts, so each group needs two");
  }

  const ModelConfig& config_;
  const std::string& where_;
  ErrorCode code_;
};

}  // namespace

std::span<const ModelSize> ModelSizes() { return kSizes; }

void CheckModelConfig(const ModelConfig& config, const std::string& where, ErrorCode code) { Checker(config, where, code).Check(); }

}  // namespace fathom

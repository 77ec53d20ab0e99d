#include "fathom/spec/model_spec.h"

#include <utility>

#include "fathom/base/error.h"

namespace fathom {
namespace {

using R = ParamRole;

constexpr int64_t kMaxTensors = 10'000'000;

// Upper bound, from the config alone.
int64_t CountTensors(const ModelConfig& config) {
  constexpr int64_t kPerLayer = 24;
  return (config.num_hidden_layers + config.num_nextn_predict_layers) * (kPerLayer + 3 * config.n_routed_experts);
}

class Lister {
 public:
  explicit Lister(const ModelConfig& config) : c_(config) {}

  std::vector<ParamSpec> All() {
    Root(R::kEmbedding, {c_.vocab_size, c_.hidden_size});
    for (at_.layer = 0; at_.layer < c_.num_hidden_layers; ++at_.layer) Layer();
    Root(R::kFinalNorm, {c_.hidden_size});
    Root(R::kHead, {c_.vocab_size, c_.hidden_size});
    for (int64_t k = 0; k < c_.num_nextn_predict_layers; ++k) {
      at_ = {.layer = c_.num_hidden_layers + k, .mtp = k};
      Mtp();
    }
    return std::move(list_);
  }

 private:
  struct Place {
    int64_t layer = -1, expert = -1, mtp = -1;
  };

  void Root(R role, Shape shape) { list_.push_back({std::string(FactsOf(role).hub), shape, role}); }
  void Add(R role, Shape shape) {
    std::string name = LayerPrefix(at_.layer);
    if (at_.expert >= 0) name += fmt::format("mlp.experts.{}.", at_.expert);
    name += FactsOf(role).hub;
    list_.push_back({std::move(name), shape, role, at_.layer, at_.expert, at_.mtp});
  }

  void Layer() {
    Add(R::kInputNorm, {c_.hidden_size});
    Attention();
    if (c_.has_indexer()) Indexer();
    Add(R::kPostAttentionNorm, {c_.hidden_size});
    if (c_.is_moe_layer(at_.layer)) return Moe();
    Mlp(R::kMlpGate, R::kMlpUp, R::kMlpDown, c_.intermediate_size);
  }

  void Attention() {
    const int64_t q_width = c_.num_attention_heads * c_.qk_head_dim();
    if (c_.q_lora_rank > 0) {
      Add(R::kQueryDown, {c_.q_lora_rank, c_.hidden_size});
      Add(R::kQueryNorm, {c_.q_lora_rank});
      Add(R::kQueryUp, {q_width, c_.q_lora_rank});
    } else {
      Add(R::kQuery, {q_width, c_.hidden_size});
    }
    Add(R::kKvDown, {c_.kv_lora_rank + c_.qk_rope_head_dim, c_.hidden_size});
    Add(R::kKvNorm, {c_.kv_lora_rank});
    Add(R::kKvUp, {c_.num_attention_heads * (c_.qk_nope_head_dim + c_.v_head_dim), c_.kv_lora_rank});
    Add(R::kOutput, {c_.hidden_size, c_.num_attention_heads * c_.v_head_dim});
  }

  void Indexer() {
    Add(R::kIndexerQuery, {c_.index_n_heads * c_.index_head_dim, c_.q_lora_rank});
    Add(R::kIndexerKey, {c_.index_head_dim, c_.hidden_size});
    Add(R::kIndexerKeyNorm, {c_.index_head_dim});
    Add(R::kIndexerKeyNormBias, {c_.index_head_dim});
    Add(R::kIndexerHeadWeights, {c_.index_n_heads, c_.hidden_size});
  }

  void Mlp(R gate, R up, R down, int64_t width) {
    Add(gate, {width, c_.hidden_size});
    Add(up, {width, c_.hidden_size});
    Add(down, {c_.hidden_size, width});
  }

  void Moe() {
    Add(R::kRouter, {c_.n_routed_experts, c_.hidden_size});
    if (c_.topk_method == TopkMethod::kNoauxTc) Add(R::kRouterBias, {c_.n_routed_experts});
    for (at_.expert = 0; at_.expert < c_.n_routed_experts; ++at_.expert)
      Mlp(R::kExpertGate, R::kExpertUp, R::kExpertDown, c_.moe_intermediate_size);
    at_.expert = -1;
    if (c_.n_shared_experts > 0) Mlp(R::kSharedGate, R::kSharedUp, R::kSharedDown, c_.n_shared_experts * c_.moe_intermediate_size);
  }

  void Mtp() {
    Add(R::kMtpEmbedding, {c_.vocab_size, c_.hidden_size});
    Add(R::kMtpEmbeddingNorm, {c_.hidden_size});
    Add(R::kMtpHiddenNorm, {c_.hidden_size});
    Add(R::kMtpProjection, {c_.hidden_size, 2 * c_.hidden_size});
    Layer();
    Add(R::kMtpFinalNorm, {c_.hidden_size});
    Add(R::kMtpHead, {c_.vocab_size, c_.hidden_size});
  }

  const ModelConfig& c_;
  Place at_;
  std::vector<ParamSpec> list_;
};

std::vector<ParamSpec> ListParams(const ModelConfig& config) {
  const int64_t count = CountTensors(config);
  if (count > kMaxTensors) Throw(ErrorCode::kInput, "config.json implies about {} tensors, at most {} are allowed", count, kMaxTensors);
  return Lister(config).All();
}

}  // namespace

std::string LayerPrefix(int64_t layer) { return fmt::format("model.layers.{}.", layer); }

ModelSpec::ModelSpec(const ModelConfig& config) : params_(ListParams(config)) {
  by_name_.reserve(params_.size());
  for (size_t i = 0; i < params_.size(); ++i) by_name_.emplace(params_[i].name, i);
}

const ParamSpec* ModelSpec::Find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &params_[found->second];
}

const ParamSpec& ModelSpec::Root(ParamRole role) const {
  const ParamSpec* found = Find(FactsOf(role).hub);
  FATHOM_CHECK(found != nullptr && found->role == role, "role {} is of a layer", static_cast<int>(role));
  return *found;
}

const ParamSpec& ModelSpec::Original(const ParamSpec& param) const {
  const auto role = CopyOf(param.role);
  return role ? Root(*role) : param;
}

ParameterCounts CountParameters(const ModelConfig& config) {
  ParameterCounts counts;
  int64_t routed = 0;
  for (const ParamSpec& param : ModelSpec(config)) {
    if (LearnsByCounting(param.role) || param.is_copy()) continue;
    const int64_t n = param.shape.NumElements();
    (param.is_mtp() ? counts.mtp : counts.total) += n;
    if (!param.is_mtp() && param.is_expert()) routed += n;
  }
  counts.active = counts.total;
  if (routed > 0) counts.active -= routed / config.n_routed_experts * (config.n_routed_experts - config.num_experts_per_tok);
  return counts;
}

}  // namespace fathom

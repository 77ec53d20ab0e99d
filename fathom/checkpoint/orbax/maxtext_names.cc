#include "fathom/checkpoint/orbax/maxtext_names.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <string_view>

#include "fathom/base/error.h"

namespace fathom {
namespace {

enum class Form { kVector, kBias, kMatrix, kHeadsOut, kHeadsIn, kIndexerHeadsOut };

struct Rule {
  const char* hub;
  const char* maxtext;
  Form form;
};

// Below "model.layers.N.", and below "decoder.<group>." or "mtp_block. ... transformer_layer.".
constexpr Rule kLayerRules[] = {
    {"input_layernorm.weight", "pre_self_attention_layer_norm.scale", Form::kVector},
    {"post_attention_layernorm.weight", "post_self_attention_layer_norm.scale", Form::kVector},
    {"self_attn.q_proj.weight", "self_attention.query.kernel", Form::kHeadsOut},
    {"self_attn.q_a_proj.weight", "self_attention.wq_a.kernel", Form::kMatrix},
    {"self_attn.q_a_layernorm.weight", "self_attention.q_norm.scale", Form::kVector},
    {"self_attn.q_b_proj.weight", "self_attention.wq_b.kernel", Form::kHeadsOut},
    {"self_attn.kv_a_proj_with_mqa.weight", "self_attention.wkv_a.kernel", Form::kMatrix},
    {"self_attn.kv_a_layernorm.weight", "self_attention.kv_norm.scale", Form::kVector},
    {"self_attn.kv_b_proj.weight", "self_attention.wkv_b.kernel", Form::kHeadsOut},
    {"self_attn.o_proj.weight", "self_attention.out.kernel", Form::kHeadsIn},
    {"self_attn.indexer.wq_b.weight", "self_attention.indexer.wq_b.kernel", Form::kIndexerHeadsOut},
    {"self_attn.indexer.wk.weight", "self_attention.indexer.wk.kernel", Form::kMatrix},
    {"self_attn.indexer.k_norm.weight", "self_attention.indexer.k_norm.scale", Form::kVector},
    {"self_attn.indexer.k_norm.bias", "self_attention.indexer.k_norm.bias", Form::kVector},
    {"self_attn.indexer.weights_proj.weight", "self_attention.indexer.weights_proj.kernel", Form::kMatrix},
    {"mlp.gate_proj.weight", "mlp.wi_0.kernel", Form::kMatrix},
    {"mlp.up_proj.weight", "mlp.wi_1.kernel", Form::kMatrix},
    {"mlp.down_proj.weight", "mlp.wo.kernel", Form::kMatrix},
    {"mlp.gate.weight", "DeepSeekMoeBlock_0.MoeBlock_0.gate.kernel", Form::kMatrix},
    {"mlp.gate.e_score_correction_bias", "DeepSeekMoeBlock_0.MoeBlock_0.gate.bias", Form::kBias},
    {"mlp.shared_experts.gate_proj.weight", "DeepSeekMoeBlock_0.shared_experts.wi_0.kernel", Form::kMatrix},
    {"mlp.shared_experts.up_proj.weight", "DeepSeekMoeBlock_0.shared_experts.wi_1.kernel", Form::kMatrix},
    {"mlp.shared_experts.down_proj.weight", "DeepSeekMoeBlock_0.shared_experts.wo.kernel", Form::kMatrix},
};
// Below "mlp.experts.E.".
constexpr Rule kExpertRules[] = {
    {"gate_proj.weight", "DeepSeekMoeBlock_0.MoeBlock_0.wi_0", Form::kMatrix},
    {"up_proj.weight", "DeepSeekMoeBlock_0.MoeBlock_0.wi_1", Form::kMatrix},
    {"down_proj.weight", "DeepSeekMoeBlock_0.MoeBlock_0.wo", Form::kMatrix},
};
// Of an MTP module, beside its layer: below "mtp_block.mtp_layer_K.mtp_K_".
constexpr Rule kMtpRules[] = {
    {"enorm.weight", "embedding_norm.scale", Form::kVector},
    {"hnorm.weight", "hidden_state_norm.scale", Form::kVector},
    {"eh_proj.weight", "projection.kernel", Form::kMatrix},
    {"shared_head.norm.weight", "final_norm.scale", Form::kVector},
};
constexpr Rule kRootRules[] = {
    {"model.norm.weight", "decoder.decoder_norm.scale", Form::kVector},
    {"lm_head.weight", "decoder.logits_dense.kernel", Form::kMatrix},
};
constexpr std::string_view kExperts = "mlp.experts.";

template <size_t n>
const Rule* FindRule(const Rule (&rules)[n], std::string_view hub) {
  const auto found = std::ranges::find(rules, hub, &Rule::hub);
  return found == std::end(rules) ? nullptr : found;
}

int64_t Product(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (const int64_t d : dims) n *= d;
  return n;
}

// Where one hub tensor goes.
struct Target {
  std::string array;
  const Rule* rule = nullptr;
  int64_t expert = -1;
  int64_t layer = 0, layers = 0;  // layers > 0: stacked
};

class Builder {
 public:
  Builder(const ModelConfig& config, bool scanned) : c_(config), scanned_(scanned) {
    if (c_.n_routed_experts > 0 && c_.moe_layer_freq != 1)
      Throw(ErrorCode::kInput, "moe_layer_freq is {}: MaxText has no such layout, only 1", c_.moe_layer_freq);
  }

  std::vector<MaxTextArray> Build() {
    for (const ExpectedTensor& tensor : ExpectedTensors(c_)) {
      if (!tensor.shared_copy) Add(tensor);
    }
    return std::move(arrays_);
  }

 private:
  // Sets rule and expert from the name below the layer; false: not a tensor of a layer.
  static bool MatchLayer(std::string_view below, Target& target) {
    if (below.starts_with(kExperts)) {
      const std::string_view rest = below.substr(kExperts.size());
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), target.expert);
      target.rule = FindRule(kExpertRules, rest.substr(static_cast<size_t>(end - rest.data()) + 1));
    } else {
      target.rule = FindRule(kLayerRules, below);
    }
    return target.rule != nullptr;
  }

  Target InGroup(const ExpectedTensor& tensor, std::string_view below) const {
    const int64_t dense = c_.n_routed_experts > 0 ? std::min(c_.first_k_dense_replace, c_.num_hidden_layers) : c_.num_hidden_layers;
    const bool moe = tensor.layer >= dense;
    Target target;
    MatchLayer(below, target);
    FATHOM_CHECK(target.rule != nullptr, "{}", tensor.name);
    target.layer = moe ? tensor.layer - dense : tensor.layer;
    const std::string group = moe ? "moe_layers" : "dense_layers";
    if (scanned_) target.layers = moe ? c_.num_hidden_layers - dense : dense;
    target.array = scanned_ ? fmt::format("decoder.{}.{}", group, target.rule->maxtext)
                            : fmt::format("decoder.{}_{}.{}", group, target.layer, target.rule->maxtext);
    return target;
  }

  Target InMtp(const ExpectedTensor& tensor, std::string_view below) const {
    const int64_t k = tensor.layer - c_.num_hidden_layers + 1;
    const std::string prefix = fmt::format("mtp_block.mtp_layer_{}.mtp_{}_", k, k);
    Target target;
    if (MatchLayer(below, target)) {
      target.array = prefix + "transformer_layer." + target.rule->maxtext;
    } else {
      target.rule = FindRule(kMtpRules, below);
      FATHOM_CHECK(target.rule != nullptr, "{}", tensor.name);
      target.array = prefix + target.rule->maxtext;
    }
    return target;
  }

  Target TargetOf(const ExpectedTensor& tensor) const {
    if (tensor.layer < 0) {
      const Rule* rule = FindRule(kRootRules, tensor.name);
      return {rule == nullptr ? "token_embedder.embedding" : rule->maxtext, rule};
    }
    const std::string prefix = fmt::format("model.layers.{}.", tensor.layer);
    const std::string_view below = std::string_view(tensor.name).substr(prefix.size());
    return tensor.is_mtp ? InMtp(tensor, below) : InGroup(tensor, below);
  }

  void Add(const ExpectedTensor& tensor) {
    const Target target = TargetOf(tensor);
    const auto [found, fresh] = index_.try_emplace(target.array, arrays_.size());
    if (fresh) arrays_.push_back(Make(tensor, target));
    MaxTextArray& array = arrays_[found->second];
    array.tensors[static_cast<size_t>(std::max<int64_t>(target.expert, 0) * array.layers + (target.layers > 0 ? target.layer : 0))] =
        tensor.name;
  }

  MaxTextArray Make(const ExpectedTensor& tensor, const Target& target) const {
    MaxTextArray array;
    array.name = target.array;
    array.experts = target.expert >= 0 ? c_.n_routed_experts : 1;
    array.layers = std::max<int64_t>(1, target.layers);
    array.tensors.resize(static_cast<size_t>(array.experts * array.layers));
    if (target.rule == nullptr) {
      array.transposed = false;
      array.rows = {tensor.shape[0]};
      array.columns = {tensor.shape[1]};
      return array;
    }
    array.router_bias = target.rule->form == Form::kBias;
    SetAxes(tensor.shape, target.rule->form, array);
    if (target.expert >= 0) array.expert_axis = 0;
    if (target.layers > 0) array.layer_axis = array.router_bias ? 0 : 1;
    return array;
  }

  void SetAxes(const Shape& shape, Form form, MaxTextArray& array) const {
    const int64_t heads = form == Form::kIndexerHeadsOut ? c_.index_n_heads : c_.num_attention_heads;
    const bool matrix = shape.rank() == 2;
    array.columns = {matrix ? shape[1] : shape[0]};
    if (matrix) array.rows = {shape[0]};
    if (form == Form::kHeadsOut || form == Form::kIndexerHeadsOut) array.rows = {heads, shape[0] / heads};
    if (form == Form::kHeadsIn) array.columns = {heads, shape[1] / heads};
  }

  const ModelConfig& c_;
  bool scanned_;
  std::vector<MaxTextArray> arrays_;
  std::map<std::string, size_t> index_;
};

}  // namespace

Shape MaxTextArray::shape() const {
  std::vector<int64_t> dims = transposed ? columns : rows;
  const auto& behind = transposed ? rows : columns;
  dims.insert(dims.end(), behind.begin(), behind.end());
  if (expert_axis >= 0) dims.insert(dims.begin() + expert_axis, experts);
  if (layer_axis >= 0) dims.insert(dims.begin() + layer_axis, layers);
  return Shape(dims);
}

int64_t MaxTextArray::Columns() const { return Product(columns); }
int64_t MaxTextArray::Rows() const { return Product(rows); }
int64_t MaxTextArray::RowUnit() const { return rows.empty() ? 1 : Product(rows) / rows[0]; }
int MaxTextArray::RowAxis() const {
  if (rows.empty()) return -1;
  return transposed ? shape().rank() - static_cast<int>(rows.size()) : 0;
}
int MaxTextArray::ColumnAxis() const {
  if (!transposed) return static_cast<int>(rows.size());
  const int before = expert_axis >= 0 ? 1 : 0;
  return before + (layer_axis >= 0 && layer_axis <= before ? 1 : 0);
}

std::vector<MaxTextArray> MaxTextArrays(const ModelConfig& config, bool scanned) { return Builder(config, scanned).Build(); }

bool IsScannedName(const std::string& name) {
  return name.find("decoder.moe_layers.") != name.npos || name.find("decoder.dense_layers.") != name.npos;
}

}  // namespace fathom

#include "fathom/checkpoint/hub/hf_names.h"

#include <algorithm>
#include <array>
#include <set>

#include "fathom/base/error.h"

namespace fathom {
namespace {

constexpr int64_t kMaxTensors = 10'000'000;

// Upper bound, from the config alone.
int64_t CountTensors(const ModelConfig& config) {
  constexpr int64_t kPerLayer = 24;
  return (config.num_hidden_layers + config.num_nextn_predict_layers) * (kPerLayer + 3 * config.n_routed_experts);
}

class Lister {
 public:
  explicit Lister(const ModelConfig& config) : c_(config) {}

  std::vector<ExpectedTensor> All() {
    Add("model.embed_tokens.weight", {c_.vocab_size, c_.hidden_size}, TensorKind::kPlainMatrix);
    for (layer_ = 0; layer_ < c_.num_hidden_layers; ++layer_) Layer();
    layer_ = -1;
    Add("model.norm.weight", {c_.hidden_size}, TensorKind::kNorm);
    Add("lm_head.weight", {c_.vocab_size, c_.hidden_size}, TensorKind::kPlainMatrix);
    mtp_ = true;
    for (int64_t k = 0; k < c_.num_nextn_predict_layers; ++k) {
      layer_ = c_.num_hidden_layers + k;
      Mtp();
    }
    return std::move(list_);
  }

 private:
  void Add(std::string name, Shape shape, TensorKind kind) { list_.push_back({std::move(name), shape, kind, layer_, mtp_}); }
  void AddInLayer(const std::string& name, Shape shape, TensorKind kind) {
    Add(fmt::format("model.layers.{}.{}", layer_, name), shape, kind);
  }
  void Matrix(const std::string& name, int64_t out, int64_t in) { AddInLayer(name + ".weight", {out, in}, TensorKind::kMatrix); }
  void PlainMatrix(const std::string& name, int64_t out, int64_t in) { AddInLayer(name + ".weight", {out, in}, TensorKind::kPlainMatrix); }
  void Norm(const std::string& name, int64_t n) { AddInLayer(name + ".weight", {n}, TensorKind::kNorm); }

  void Layer() {
    Norm("input_layernorm", c_.hidden_size);
    Attention();
    if (c_.has_indexer()) Indexer();
    Norm("post_attention_layernorm", c_.hidden_size);
    if (c_.is_moe_layer(layer_)) return Moe();
    Mlp("mlp.", c_.intermediate_size);
  }

  void Attention() {
    const int64_t q_width = c_.num_attention_heads * c_.qk_head_dim();
    if (c_.q_lora_rank > 0) {
      Matrix("self_attn.q_a_proj", c_.q_lora_rank, c_.hidden_size);
      Norm("self_attn.q_a_layernorm", c_.q_lora_rank);
      Matrix("self_attn.q_b_proj", q_width, c_.q_lora_rank);
    } else {
      Matrix("self_attn.q_proj", q_width, c_.hidden_size);
    }
    Matrix("self_attn.kv_a_proj_with_mqa", c_.kv_lora_rank + c_.qk_rope_head_dim, c_.hidden_size);
    Norm("self_attn.kv_a_layernorm", c_.kv_lora_rank);
    Matrix("self_attn.kv_b_proj", c_.num_attention_heads * (c_.qk_nope_head_dim + c_.v_head_dim), c_.kv_lora_rank);
    Matrix("self_attn.o_proj", c_.hidden_size, c_.num_attention_heads * c_.v_head_dim);
  }

  void Indexer() {
    Matrix("self_attn.indexer.wq_b", c_.index_n_heads * c_.index_head_dim, c_.q_lora_rank);
    Matrix("self_attn.indexer.wk", c_.index_head_dim, c_.hidden_size);
    Norm("self_attn.indexer.k_norm", c_.index_head_dim);
    AddInLayer("self_attn.indexer.k_norm.bias", {c_.index_head_dim}, TensorKind::kNorm);
    PlainMatrix("self_attn.indexer.weights_proj", c_.index_n_heads, c_.hidden_size);
  }

  void Mlp(const std::string& prefix, int64_t width) {
    Matrix(prefix + "gate_proj", width, c_.hidden_size);
    Matrix(prefix + "up_proj", width, c_.hidden_size);
    Matrix(prefix + "down_proj", c_.hidden_size, width);
  }

  void Moe() {
    PlainMatrix("mlp.gate", c_.n_routed_experts, c_.hidden_size);
    if (c_.topk_method == TopkMethod::kNoauxTc)
      AddInLayer("mlp.gate.e_score_correction_bias", {c_.n_routed_experts}, TensorKind::kRouterBias);
    for (int64_t e = 0; e < c_.n_routed_experts; ++e) Mlp(fmt::format("mlp.experts.{}.", e), c_.moe_intermediate_size);
    if (c_.n_shared_experts > 0) Mlp("mlp.shared_experts.", c_.n_shared_experts * c_.moe_intermediate_size);
  }

  void Mtp() {
    PlainMatrix("embed_tokens", c_.vocab_size, c_.hidden_size);
    list_.back().shared_copy = true;
    Norm("enorm", c_.hidden_size);
    Norm("hnorm", c_.hidden_size);
    PlainMatrix("eh_proj", c_.hidden_size, 2 * c_.hidden_size);
    Layer();
    Norm("shared_head.norm", c_.hidden_size);
    PlainMatrix("shared_head.head", c_.vocab_size, c_.hidden_size);
    list_.back().shared_copy = true;
  }

  const ModelConfig& c_;
  int64_t layer_ = -1;
  bool mtp_ = false;
  std::vector<ExpectedTensor> list_;
};

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }
bool IsIndexer(const ExpectedTensor& tensor) { return tensor.name.find(".indexer.") != std::string::npos; }
bool IsTolerated(std::string_view name) { return name.ends_with(".rotary_emb.inv_freq"); }

// quantization_config lists modules that stay unquantised.
bool NamesExceptions(const ModelConfig& config) {
  if (!config.fp8 || !config.raw.contains("quantization_config")) return false;
  const Json& quantization = config.raw["quantization_config"];
  return std::ranges::any_of(std::array{"modules_to_not_convert", "ignored_layers"}, [&](const char* key) {
    return quantization.contains(key) && quantization[key].is_array() && !quantization[key].empty();
  });
}

class Comparison {
 public:
  Comparison(const TensorFolder& folder, const ModelConfig& config, const ValidateOptions& options,
             const std::function<void(const std::string&)>& report)
      : folder_(folder), config_(config), report_(report), expected_(ExpectedTensors(config)) {
    mtp_may_lack_ = options.allow_missing_mtp && !Any(&ExpectedTensor::is_mtp);
    indexer_may_lack_ = options.allow_missing_indexer &&
                        !std::ranges::any_of(expected_, [&](const auto& t) { return IsIndexer(t) && folder_.Has(t.name); });
    names_exceptions_ = NamesExceptions(config);
    copies_may_lack_ = !Any(&ExpectedTensor::shared_copy);
  }

  void Run() {
    ReportMissingMtp();
    for (const ExpectedTensor& tensor : expected_) CheckOne(tensor);
    for (const std::string& name : folder_.names()) {
      if (!known_.contains(name) && !IsTolerated(name)) {
        Report(name, fmt::format("{} {} is extra: config.json implies no such tensor", DTypeName(folder_.Find(name)->dtype),
                                 folder_.Find(name)->shape.ToString()));
      }
    }
  }

 private:
  bool Any(bool ExpectedTensor::*member) const {
    return std::ranges::any_of(expected_, [&](const ExpectedTensor& t) { return t.*member && folder_.Has(t.name); });
  }
  // One line instead of one per tensor.
  void ReportMissingMtp() {
    if (mtp_may_lack_ || config_.num_nextn_predict_layers == 0 || Any(&ExpectedTensor::is_mtp)) return;
    report_(fmt::format("{}: no tensor of the MTP module (model.layers.{}.*), but config.json says num_nextn_predict_layers {}",
                        folder_.dir().string(), config_.num_hidden_layers, config_.num_nextn_predict_layers));
    mtp_may_lack_ = true;
  }
  bool MayLack(const ExpectedTensor& t) const {
    return (t.shared_copy && copies_may_lack_) || (t.is_mtp && mtp_may_lack_) || (IsIndexer(t) && indexer_may_lack_);
  }
  void Report(const std::string& name, const std::string& what) const {
    report_(fmt::format("{}: tensor {}: {}", folder_.FileOf(name).path().string(), name, what));
  }

  void CheckOne(const ExpectedTensor& tensor) {
    known_.insert(tensor.name);
    const TensorEntry* found = folder_.Find(tensor.name);
    if (found == nullptr) {
      if (!MayLack(tensor))
        report_(fmt::format("{}: tensor {} is missing, expected {}", folder_.dir().string(), tensor.name, tensor.shape.ToString()));
      return;
    }
    if (found->dtype == DType::kF8E4M3) known_.insert(tensor.name + std::string(kScaleSuffix));
    if (found->shape != tensor.shape) {
      return Report(tensor.name, fmt::format("shape is {}, config.json implies {}", found->shape.ToString(), tensor.shape.ToString()));
    }
    CheckDType(tensor, found->dtype);
  }

  void CheckDType(const ExpectedTensor& tensor, DType found) {
    if (tensor.kind == TensorKind::kMatrix && config_.fp8) {
      if (found == DType::kF8E4M3) return CheckScale(tensor.name);
      if (names_exceptions_ && IsFloat(found)) return;
      return Report(tensor.name, fmt::format("dtype is {}, config.json implies F8_E4M3 (quantization_config)", DTypeName(found)));
    }
    if (IsFloat(found)) return;
    const char* hint = found == DType::kF8E4M3 && !config_.fp8 ? "; config.json has no quantization_config" : "";
    Report(tensor.name, fmt::format("dtype is {}, expected F32, BF16 or F16{}", DTypeName(found), hint));
  }

  void CheckScale(const std::string& name) {
    try {
      folder_.GetWeight(name);
    } catch (const Error& e) {
      report_(e.what());
    }
  }

  const TensorFolder& folder_;
  const ModelConfig& config_;
  const std::function<void(const std::string&)>& report_;
  const std::vector<ExpectedTensor> expected_;
  bool mtp_may_lack_, indexer_may_lack_, copies_may_lack_, names_exceptions_;
  std::set<std::string> known_;
};

}  // namespace

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  const int64_t count = CountTensors(config);
  if (count > kMaxTensors) Throw(ErrorCode::kInput, "config.json implies about {} tensors, at most {} are allowed", count, kMaxTensors);
  return Lister(config).All();
}

ParameterCounts CountParameters(const ModelConfig& config) {
  ParameterCounts counts;
  int64_t routed = 0;
  for (const ExpectedTensor& tensor : ExpectedTensors(config)) {
    if (tensor.kind == TensorKind::kRouterBias || tensor.shared_copy) continue;
    const int64_t n = tensor.shape.NumElements();
    (tensor.is_mtp ? counts.mtp : counts.total) += n;
    if (!tensor.is_mtp && tensor.name.find(".mlp.experts.") != std::string::npos) routed += n;
  }
  counts.active = counts.total;
  if (routed > 0) counts.active -= routed / config.n_routed_experts * (config.n_routed_experts - config.num_experts_per_tok);
  return counts;
}

void CompareWithConfig(const TensorFolder& folder, const ModelConfig& config, const ValidateOptions& options,
                       const std::function<void(const std::string&)>& report) {
  Comparison(folder, config, options, report).Run();
}

void ValidateAgainstConfig(const Checkpoint& checkpoint, const ValidateOptions& options) {
  std::string first;
  int64_t others = -1;
  CompareWithConfig(checkpoint, checkpoint.config(), options, [&](const std::string& message) {
    if (++others == 0) first = message;
  });
  if (others == 0) throw Error(ErrorCode::kInput, first);
  if (others > 0) Throw(ErrorCode::kInput, "{} (and {} more; fathom check files lists them)", first, others);
}

}  // namespace fathom

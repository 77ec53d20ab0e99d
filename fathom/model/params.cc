#include "fathom/model/params.h"

#include <map>

#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

using R = ParamRole;

// Makes a tensor for each weight, once for those that share their memory.
class PerMemory {
 public:
  Weight& Slot(const Weight& w) { return made_[w.value.view().raw()]; }

 private:
  std::map<const std::byte*, Weight> made_;
};

MlpParams& MlpOf(BlockParams& block, const ParamSpec& param) {
  if (param.is_expert()) return block.moe.experts[static_cast<size_t>(param.expert)];
  const bool shared = param.role == R::kSharedGate || param.role == R::kSharedUp || param.role == R::kSharedDown;
  return shared ? block.moe.shared_experts : block.dense;
}

Weight& SlotOf(BlockParams& block, const ParamSpec& param) {
  MlaParams& attention = block.self_attn;
  switch (param.role) {
    case R::kInputNorm:
      return block.input_layernorm;
    case R::kPostAttentionNorm:
      return block.post_attention_layernorm;
    case R::kQuery:
      return attention.q_proj;
    case R::kQueryDown:
      return attention.q_a_proj;
    case R::kQueryNorm:
      return attention.q_a_layernorm;
    case R::kQueryUp:
      return attention.q_b_proj;
    case R::kKvDown:
      return attention.kv_a_proj_with_mqa;
    case R::kKvNorm:
      return attention.kv_a_layernorm;
    case R::kKvUp:
      return attention.kv_b_proj;
    case R::kOutput:
      return attention.o_proj;
    case R::kIndexerQuery:
      return attention.indexer.wq_b;
    case R::kIndexerKey:
      return attention.indexer.wk;
    case R::kIndexerKeyNorm:
      return attention.indexer.k_norm;
    case R::kIndexerKeyNormBias:
      return attention.indexer.k_norm_bias;
    case R::kIndexerHeadWeights:
      return attention.indexer.weights_proj;
    case R::kRouter:
      return block.moe.gate;
    case R::kRouterBias:
      return block.moe.e_score_correction_bias;
    case R::kMlpGate:
    case R::kExpertGate:
    case R::kSharedGate:
      return MlpOf(block, param).gate_proj;
    case R::kMlpUp:
    case R::kExpertUp:
    case R::kSharedUp:
      return MlpOf(block, param).up_proj;
    case R::kMlpDown:
    case R::kExpertDown:
    case R::kSharedDown:
      return MlpOf(block, param).down_proj;
    default:
      FATHOM_CHECK(false, "{} is of no layer", param.name);
  }
}

Weight& SlotOf(MtpParams& module, const ParamSpec& param) {
  switch (param.role) {
    case R::kMtpEmbedding:
      return module.embed_tokens;
    case R::kMtpHead:
      return module.shared_head_head;
    case R::kMtpEmbeddingNorm:
      return module.enorm;
    case R::kMtpHiddenNorm:
      return module.hnorm;
    case R::kMtpProjection:
      return module.eh_proj;
    case R::kMtpFinalNorm:
      return module.shared_head_norm;
    default:
      return SlotOf(module.block, param);
  }
}

}  // namespace

DecoderParams DecoderParams::For(const ModelConfig& config) {
  DecoderParams p;
  p.spec = std::make_shared<const ModelSpec>(config);
  const auto experts = static_cast<size_t>(config.n_routed_experts);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    p.layers.emplace_back();
    if (config.is_moe_layer(i)) p.layers.back().moe.experts.resize(experts);
  }
  p.mtp.resize(static_cast<size_t>(config.num_nextn_predict_layers));
  for (MtpParams& m : p.mtp) m.block.moe.experts.resize(experts);
  return p;
}

DecoderParams DecoderParams::Like(const DecoderParams& other) {
  DecoderParams p;
  p.spec = other.spec;
  for (const BlockParams& layer : other.layers) p.layers.emplace_back().moe.experts.resize(layer.moe.experts.size());
  for (const MtpParams& m : other.mtp) p.mtp.emplace_back().block.moe.experts.resize(m.block.moe.experts.size());
  return p;
}

Weight& DecoderParams::operator[](const ParamSpec& param) {
  if (param.is_mtp()) return SlotOf(mtp[static_cast<size_t>(param.mtp)], param);
  if (param.layer >= 0) return SlotOf(layers[static_cast<size_t>(param.layer)], param);
  return param.role == R::kEmbedding ? embed_tokens : param.role == R::kHead ? lm_head : norm;
}

void ShareEmbeddingAndHead(DecoderParams& params) {
  for (MtpParams& m : params.mtp) {
    m.embed_tokens = params.embed_tokens;
    m.shared_head_head = params.lm_head;
  }
}

std::vector<NamedWeight> ListParams(DecoderParams& params) {
  std::vector<NamedWeight> list;
  for (const ParamSpec& param : *params.spec) {
    if (Weight& w = params[param]; !w.value.empty()) list.push_back({&param, &w});
  }
  return list;
}

DecoderParams MakeGradients(DecoderParams& params, ParamFilter wanted) {
  DecoderParams grads = DecoderParams::Like(params);
  PerMemory made;
  for (const auto& [param, w] : ListParams(params)) {
    if (!wanted(*param)) continue;
    Weight& slot = made.Slot(*w);
    if (slot.value.empty()) slot.value = Tensor(DType::kF32, w->value.shape());
    grads[*param] = slot;
  }
  for (const ParamSpec& param : *params.spec) {
    if (const auto& adapter = params[param].adapter)
      grads[param].adapter =
          std::make_shared<LowRank>(LowRank{Tensor(DType::kF32, adapter->a.shape()), Tensor(DType::kF32, adapter->b.shape())});
  }
  return grads;
}

DecoderParams MakeBF16Copy(DecoderParams& params, ParamFilter rounded) {
  DecoderParams copy = params;
  PerMemory made;
  for (const auto& [param, w] : ListParams(params)) {
    if (!rounded(*param)) continue;
    Weight& slot = made.Slot(*w);
    if (slot.value.empty()) {
      slot.value = Tensor(DType::kBF16, w->value.shape());
      Cast(w->value.view(), slot.value.mutable_view());
    }
    copy[*param].value = slot.value;
  }
  return copy;
}

}  // namespace fathom

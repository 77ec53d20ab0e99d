#include "fathom/spec/param_role.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "fathom/base/error.h"

namespace fathom {
namespace {

using R = ParamRole;
using P = ParamPlace;
using F = MaxTextForm;
using S = HubStorage;
using V = FreshValues;
using A = AdapterUse;

// In the order of the enum.
constexpr RoleFacts kFacts[] = {
    {R::kEmbedding, P::kRoot, "model.embed_tokens.weight", "token_embedder.embedding", F::kEmbedding, S::kPlain, V::kUnitNormal, false,
     A::kNever},
    {R::kFinalNorm, P::kRoot, "model.norm.weight", "decoder.decoder_norm.scale", F::kVector, S::kPlain, V::kOnes, false, A::kNever},
    {R::kHead, P::kRoot, "lm_head.weight", "decoder.logits_dense.kernel", F::kMatrix, S::kPlain, V::kFanIn, true, A::kNever},
    {R::kInputNorm, P::kLayer, "input_layernorm.weight", "pre_self_attention_layer_norm.scale", F::kVector, S::kPlain, V::kOnes, false,
     A::kNever},
    {R::kPostAttentionNorm, P::kLayer, "post_attention_layernorm.weight", "post_self_attention_layer_norm.scale", F::kVector, S::kPlain,
     V::kOnes, false, A::kNever},
    {R::kQuery, P::kLayer, "self_attn.q_proj.weight", "self_attention.query.kernel", F::kHeadsOut, S::kFp8, V::kFanIn, true, A::kByDefault},
    {R::kQueryDown, P::kLayer, "self_attn.q_a_proj.weight", "self_attention.wq_a.kernel", F::kMatrix, S::kFp8, V::kFanIn, true,
     A::kByDefault},
    {R::kQueryNorm, P::kLayer, "self_attn.q_a_layernorm.weight", "self_attention.q_norm.scale", F::kVector, S::kPlain, V::kOnes, false,
     A::kNever},
    {R::kQueryUp, P::kLayer, "self_attn.q_b_proj.weight", "self_attention.wq_b.kernel", F::kHeadsOut, S::kFp8, V::kFanIn, true,
     A::kByDefault},
    {R::kKvDown, P::kLayer, "self_attn.kv_a_proj_with_mqa.weight", "self_attention.wkv_a.kernel", F::kMatrix, S::kFp8, V::kFanIn, true,
     A::kByDefault},
    {R::kKvNorm, P::kLayer, "self_attn.kv_a_layernorm.weight", "self_attention.kv_norm.scale", F::kVector, S::kPlain, V::kOnes, false,
     A::kNever},
    {R::kKvUp, P::kLayer, "self_attn.kv_b_proj.weight", "self_attention.wkv_b.kernel", F::kHeadsOut, S::kFp8, V::kFanIn, true,
     A::kByDefault},
    {R::kOutput, P::kLayer, "self_attn.o_proj.weight", "self_attention.out.kernel", F::kHeadsIn, S::kFp8, V::kFanIn, true, A::kByDefault},
    {R::kIndexerQuery, P::kLayer, "self_attn.indexer.wq_b.weight", "self_attention.indexer.wq_b.kernel", F::kIndexerHeadsOut, S::kFp8,
     V::kFanIn, true, A::kOnRequest},
    {R::kIndexerKey, P::kLayer, "self_attn.indexer.wk.weight", "self_attention.indexer.wk.kernel", F::kMatrix, S::kFp8, V::kFanIn, true,
     A::kOnRequest},
    {R::kIndexerKeyNorm, P::kLayer, "self_attn.indexer.k_norm.weight", "self_attention.indexer.k_norm.scale", F::kVector, S::kF32, V::kOnes,
     false, A::kNever},
    {R::kIndexerKeyNormBias, P::kLayer, "self_attn.indexer.k_norm.bias", "self_attention.indexer.k_norm.bias", F::kVector, S::kF32,
     V::kZeros, false, A::kNever},
    {R::kIndexerHeadWeights, P::kLayer, "self_attn.indexer.weights_proj.weight", "self_attention.indexer.weights_proj.kernel", F::kMatrix,
     S::kPlain, V::kFanIn, true, A::kOnRequest},
    {R::kMlpGate, P::kLayer, "mlp.gate_proj.weight", "mlp.wi_0.kernel", F::kMatrix, S::kFp8, V::kFanIn, true, A::kByDefault},
    {R::kMlpUp, P::kLayer, "mlp.up_proj.weight", "mlp.wi_1.kernel", F::kMatrix, S::kFp8, V::kFanIn, true, A::kByDefault},
    {R::kMlpDown, P::kLayer, "mlp.down_proj.weight", "mlp.wo.kernel", F::kMatrix, S::kFp8, V::kFanIn, true, A::kByDefault},
    {R::kRouter, P::kLayer, "mlp.gate.weight", "DeepSeekMoeBlock_0.MoeBlock_0.gate.kernel", F::kMatrix, S::kPlain, V::kFanIn, false,
     A::kNever},
    {R::kRouterBias, P::kLayer, "mlp.gate.e_score_correction_bias", "DeepSeekMoeBlock_0.MoeBlock_0.gate.bias", F::kRouterBias, S::kF32,
     V::kZeros, false, A::kNever},
    {R::kExpertGate, P::kExpert, "gate_proj.weight", "DeepSeekMoeBlock_0.MoeBlock_0.wi_0", F::kMatrix, S::kFp8, V::kFanIn, true,
     A::kOnRequest},
    {R::kExpertUp, P::kExpert, "up_proj.weight", "DeepSeekMoeBlock_0.MoeBlock_0.wi_1", F::kMatrix, S::kFp8, V::kFanIn, true, A::kOnRequest},
    {R::kExpertDown, P::kExpert, "down_proj.weight", "DeepSeekMoeBlock_0.MoeBlock_0.wo", F::kMatrix, S::kFp8, V::kFanIn, true,
     A::kOnRequest},
    {R::kSharedGate, P::kLayer, "mlp.shared_experts.gate_proj.weight", "DeepSeekMoeBlock_0.shared_experts.wi_0.kernel", F::kMatrix, S::kFp8,
     V::kFanIn, true, A::kByDefault},
    {R::kSharedUp, P::kLayer, "mlp.shared_experts.up_proj.weight", "DeepSeekMoeBlock_0.shared_experts.wi_1.kernel", F::kMatrix, S::kFp8,
     V::kFanIn, true, A::kByDefault},
    {R::kSharedDown, P::kLayer, "mlp.shared_experts.down_proj.weight", "DeepSeekMoeBlock_0.shared_experts.wo.kernel", F::kMatrix, S::kFp8,
     V::kFanIn, true, A::kByDefault},
    {R::kMtpEmbedding, P::kMtp, "embed_tokens.weight", "", F::kNone, S::kPlain, V::kUnitNormal, false, A::kNever},
    {R::kMtpHead, P::kMtp, "shared_head.head.weight", "", F::kNone, S::kPlain, V::kFanIn, true, A::kNever},
    {R::kMtpEmbeddingNorm, P::kMtp, "enorm.weight", "embedding_norm.scale", F::kVector, S::kPlain, V::kOnes, false, A::kNever},
    {R::kMtpHiddenNorm, P::kMtp, "hnorm.weight", "hidden_state_norm.scale", F::kVector, S::kPlain, V::kOnes, false, A::kNever},
    {R::kMtpProjection, P::kMtp, "eh_proj.weight", "projection.kernel", F::kMatrix, S::kPlain, V::kFanIn, true, A::kNever},
    {R::kMtpFinalNorm, P::kMtp, "shared_head.norm.weight", "final_norm.scale", F::kVector, S::kPlain, V::kOnes, false, A::kNever},
};

constexpr bool InOrder() {
  for (size_t i = 0; i < std::size(kFacts); ++i) {
    if (static_cast<size_t>(kFacts[i].role) != i) return false;
  }
  return std::size(kFacts) == static_cast<size_t>(ParamRole::kMtpFinalNorm) + 1;
}
static_assert(InOrder());

// Cuts "<prefix><number>." off the front.
bool CutIndex(std::string_view prefix, std::string_view& name) {
  if (!name.starts_with(prefix)) return false;
  const char* end = name.data() + name.size();
  int64_t index = 0;
  const auto parsed = std::from_chars(name.data() + prefix.size(), end, index);
  if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != '.') return false;
  name.remove_prefix(static_cast<size_t>(parsed.ptr + 1 - name.data()));
  return true;
}

}  // namespace

const RoleFacts& FactsOf(ParamRole role) { return kFacts[static_cast<size_t>(role)]; }

std::optional<ParamRole> RoleOf(std::string_view hub_name) {
  const bool in_layer = CutIndex("model.layers.", hub_name), in_expert = in_layer && CutIndex("mlp.experts.", hub_name);
  const auto stands_here = [&](ParamPlace place) {
    return in_expert ? place == P::kExpert : in_layer ? place == P::kLayer || place == P::kMtp : place == P::kRoot;
  };
  const auto found = std::ranges::find_if(kFacts, [&](const RoleFacts& f) { return f.hub == hub_name && stands_here(f.place); });
  return found == std::end(kFacts) ? std::nullopt : std::optional(found->role);
}

}  // namespace fathom

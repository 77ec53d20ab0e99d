#include "fathom/train/flops.h"

namespace fathom {
namespace {

double AttentionProjections(const ModelConfig& c) {
  const double d = static_cast<double>(c.hidden_size), h = static_cast<double>(c.num_attention_heads);
  const double qk = static_cast<double>(c.qk_head_dim()), rank = static_cast<double>(c.q_lora_rank);
  const double q = c.q_lora_rank > 0 ? d * rank + rank * h * qk : d * h * qk;
  const double kv = d * static_cast<double>(c.kv_lora_rank + c.qk_rope_head_dim) +
                    static_cast<double>(c.kv_lora_rank) * h * static_cast<double>(c.qk_nope_head_dim + c.v_head_dim);
  return 2 * (q + kv + h * static_cast<double>(c.v_head_dim) * d);
}

// Half of all pairs under the causal mask.
double AttentionScores(const ModelConfig& c, int64_t length) {
  return static_cast<double>(length) * static_cast<double>(c.num_attention_heads * (c.qk_head_dim() + c.v_head_dim));
}

double FeedForward(const ModelConfig& c, bool moe) {
  const double d = static_cast<double>(c.hidden_size);
  if (!moe) return 6 * d * static_cast<double>(c.intermediate_size);
  return 2 * d * static_cast<double>(c.n_routed_experts) +
         6 * d * static_cast<double>(c.moe_intermediate_size * (c.num_experts_per_tok + c.n_shared_experts));
}

}  // namespace

double TrainFlopsPerToken(const ModelConfig& c, int64_t length, int64_t mtp_modules) {
  double forward = 2 * static_cast<double>(c.hidden_size) * static_cast<double>(c.vocab_size);
  for (int64_t i = 0; i < c.num_hidden_layers + mtp_modules; ++i) {
    forward += AttentionProjections(c) + AttentionScores(c, length) + FeedForward(c, c.is_moe_layer(i));
  }
  return 3 * forward;
}

}  // namespace fathom

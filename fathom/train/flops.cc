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

bool IsSparse(const ModelConfig& c, int64_t length) { return c.has_indexer() && length > c.index_topk; }

// The pairs under the causal mask, as a share of all: half of them, or with an indexer those within its choice.
double VisibleShare(const ModelConfig& c, int64_t length) {
  const double r = IsSparse(c, length) ? static_cast<double>(c.index_topk) / static_cast<double>(length) : 1;
  return r - r * r / 2;
}

double AttentionScores(const ModelConfig& c, int64_t length) {
  const double pair = 2 * static_cast<double>(c.num_attention_heads * (c.qk_head_dim() + c.v_head_dim));
  return VisibleShare(c, length) * static_cast<double>(length) * pair;
}

// Its projections, and its scores of half of all pairs.
double Indexer(const ModelConfig& c, int64_t length) {
  if (!IsSparse(c, length)) return 0;
  const double d = static_cast<double>(c.hidden_size), heads = static_cast<double>(c.index_n_heads);
  const double dim = static_cast<double>(c.index_head_dim);
  return 2 * (static_cast<double>(c.q_lora_rank) * heads * dim + d * dim + d * heads) + static_cast<double>(length) * heads * (dim + 1);
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
    forward += AttentionProjections(c) + AttentionScores(c, length) + Indexer(c, length) + FeedForward(c, c.is_moe_layer(i));
  }
  return 3 * forward;
}

}  // namespace fathom

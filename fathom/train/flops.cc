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

// Keys that a token attends to, on average: half of all under the causal mask, or those within the indexer's choice.
double VisibleKeys(const ModelConfig& c, int64_t length, bool sparse) {
  const double r = sparse ? static_cast<double>(c.index_topk) / static_cast<double>(length) : 1;
  return (r - r * r / 2) * static_cast<double>(length);
}

double KeyScore(const ModelConfig& c) { return 2 * static_cast<double>(c.num_attention_heads * c.qk_head_dim()); }
double KeyPair(const ModelConfig& c) { return KeyScore(c) + 2 * static_cast<double>(c.num_attention_heads * c.v_head_dim); }

double IndexerProjections(const ModelConfig& c) {
  const double d = static_cast<double>(c.hidden_size), heads = static_cast<double>(c.index_n_heads);
  const double dim = static_cast<double>(c.index_head_dim);
  return 2 * (static_cast<double>(c.q_lora_rank) * heads * dim + d * dim + d * heads);
}
double IndexerScore(const ModelConfig& c) { return 2 * static_cast<double>(c.index_n_heads * (c.index_head_dim + 1)); }

// Choosing takes the projections and the scores of all visible keys. Learning takes the main attention's scores of the keys that it looks
// at, and of the indexer the gradients: on its weights (its inputs are constants), queries and keys.
double IndexerFlops(const ModelConfig& c, const TrainOptions& o, bool chooses) {
  const bool learns = o.indexer.factor > 0 && c.has_indexer();
  const double all = VisibleKeys(c, o.length, false);
  double flops = chooses || learns ? IndexerProjections(c) : 0;
  if (chooses) flops += all * IndexerScore(c);
  if (!learns) return flops;
  const double keys = o.indexer.sparse && o.length > c.index_topk ? VisibleKeys(c, o.length, true) : all;
  return flops + IndexerProjections(c) + keys * (KeyScore(c) + (chooses ? 2 : 3) * IndexerScore(c));
}

double FeedForward(const ModelConfig& c, bool moe) {
  const double d = static_cast<double>(c.hidden_size);
  if (!moe) return 6 * d * static_cast<double>(c.intermediate_size);
  return 2 * d * static_cast<double>(c.n_routed_experts) +
         6 * d * static_cast<double>(c.moe_intermediate_size * (c.num_experts_per_tok + c.n_shared_experts));
}

}  // namespace

double TrainFlopsPerToken(const ModelConfig& c, const TrainOptions& o) {
  const bool trains_model = o.lm_loss || !c.has_indexer(),
             sparse = c.has_indexer() && o.length > c.index_topk && !o.indexer.dense_attention;
  // A backward is two products for each of the forward; under adapters the weights' own gradients are left out.
  const double passes = !trains_model ? 1 : o.lora.enabled ? 2 : 3;
  double flops = trains_model ? passes * 2 * static_cast<double>(c.hidden_size) * static_cast<double>(c.vocab_size) : 0;
  for (int64_t i = 0; i < c.num_hidden_layers + o.mtp.modules; ++i) {
    const double attention = AttentionProjections(c) + VisibleKeys(c, o.length, sparse) * KeyPair(c);
    flops += passes * (attention + FeedForward(c, c.is_moe_layer(i))) + IndexerFlops(c, o, sparse);
  }
  return flops;
}

}  // namespace fathom

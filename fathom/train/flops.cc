#include "fathom/train/flops.h"

#include "fathom/train/treatment.h"

namespace fathom {
namespace {

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

// The share of a parameter that a token multiplies: of the routed experts those that it chooses. An MTP module counts without its head and
// the projection before it; the indexer has a count of its own.
double UsedShare(const ModelConfig& c, const TrainOptions& o, const ParamSpec& param) {
  const bool counted = param.shape.rank() == 2 && !param.is_indexer() && !param.is_copy() && param.role != ParamRole::kEmbedding &&
                       param.role != ParamRole::kMtpProjection && param.mtp < o.mtp.modules;
  if (!counted) return 0;
  return param.is_expert() ? static_cast<double>(c.num_experts_per_tok) / static_cast<double>(c.n_routed_experts) : 1;
}

}  // namespace

double TrainFlopsPerToken(const ModelConfig& c, const TrainOptions& o) {
  const ModelSpec spec(c);
  const Treatments treatments(spec, o);
  const bool trains_model = o.lm_loss || !c.has_indexer(),
             sparse = c.has_indexer() && o.length > c.index_topk && !o.indexer.dense_attention;
  double flops = 0;
  for (const ParamSpec& param : spec) {
    const bool head = param.role == ParamRole::kHead;
    const double products = trains_model ? (treatments.HasGradient(param) ? 3 : 2) : head ? 0 : 1;
    flops += products * 2 * static_cast<double>(param.shape.NumElements()) * UsedShare(c, o, param);
  }
  const double pairs = (trains_model ? 3 : 1) * VisibleKeys(c, o.length, sparse) * KeyPair(c);
  return flops + static_cast<double>(c.num_hidden_layers + o.mtp.modules) * (pairs + IndexerFlops(c, o, sparse));
}

double RunFlopsPerToken(const ModelConfig& c, const TrainOptions& o) {
  ModelConfig multiplied = c;
  if (o.layers.experts.kind == ExpertRun::kDense) multiplied.num_experts_per_tok = c.n_routed_experts;
  return TrainFlopsPerToken(multiplied, o);
}

}  // namespace fathom

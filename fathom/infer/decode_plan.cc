#include "fathom/infer/decode_plan.h"

#include <algorithm>

#include "fathom/infer/drafter.h"

namespace fathom {
namespace {

// Of the embedding a token reads one row.
bool IsReadByToken(const ModelConfig& config, const std::string& name) {
  return name.find("embed_tokens") == name.npos && MtpModuleOf(config, name) < 0;
}

// Sparse attention reads index_topk latents, and every key of the indexer.
int64_t CachePerToken(const ModelConfig& c, DType compute, int64_t capacity) {
  if (!c.has_indexer()) return KvCache::PlannedBytes(c, c.num_hidden_layers, capacity, compute);
  const int64_t latents = std::min(capacity, c.index_topk) * (c.kv_lora_rank + c.qk_rope_head_dim);
  return c.num_hidden_layers * (latents + capacity * c.index_head_dim) * DTypeSize(compute);
}

}  // namespace

DecodePlan PlanDecode(const ModelConfig& config, const std::vector<TensorInfo>& stored, DType compute, int64_t capacity) {
  DecodePlan plan;
  int64_t experts = 0;
  for (const TensorInfo& tensor : stored) {
    plan.weight_bytes += tensor.NumBytes();
    if (!IsReadByToken(config, tensor.name)) continue;
    (tensor.name.find(".mlp.experts.") != tensor.name.npos ? experts : plan.weights_per_token) += tensor.NumBytes();
  }
  if (experts > 0) plan.weights_per_token += experts / config.n_routed_experts * config.num_experts_per_tok;
  plan.cache_bytes = KvCache::PlannedBytes(config, config.num_hidden_layers, capacity, compute);
  plan.cache_per_token = CachePerToken(config, compute, capacity);
  plan.scratch_bytes = Decoder(config).ScratchBytes(compute, std::min(capacity, Drafter::kChunk));
  return plan;
}

}  // namespace fathom

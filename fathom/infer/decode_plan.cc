#include "fathom/infer/decode_plan.h"

#include <algorithm>
#include <list>

#include "fathom/base/threads.h"
#include "fathom/checkpoint/safetensors/tensor_folder.h"
#include "fathom/infer/engine.h"

namespace fathom {
namespace {

// Of the embedding a token reads one row.
bool IsReadByToken(const ParamSpec& param) { return param.role != ParamRole::kEmbedding && !param.is_mtp(); }

// The parameter whose values or scales the tensor holds; nullptr: none.
const ParamSpec* ParamOf(const ModelSpec& spec, std::string_view tensor) {
  if (tensor.ends_with(kScaleSuffix)) tensor.remove_suffix(kScaleSuffix.size());
  return spec.Find(tensor);
}

// Sparse attention reads index_topk latents, and every key of the indexer.
int64_t CachePerToken(const ModelConfig& c, DType compute, int64_t capacity) {
  if (!c.has_indexer()) return CachePool::PlannedBytes(c, c.num_hidden_layers, capacity, compute);
  const int64_t latents = std::min(capacity, c.index_topk) * (c.kv_lora_rank + c.qk_rope_head_dim);
  return c.num_hidden_layers * (latents + capacity * c.index_head_dim) * DTypeSize(compute);
}

int64_t CacheBytes(const ModelConfig& c, DType compute, int64_t capacity) {
  return CachePool::PlannedBytes(c, c.num_hidden_layers, capacity, compute);
}

// As the engine maps them.
DecoderParams PlannedParams(const ModelConfig& config, const std::vector<TensorInfo>& stored) {
  DecoderParams params = DecoderParams::For(config);
  for (const TensorInfo& tensor : stored) {
    const ParamSpec* param = ParamOf(*params.spec, tensor.name);
    if (param == nullptr) continue;
    Weight& w = params[*param];
    (tensor.name.ends_with(kScaleSuffix) ? w.scale_inv : w.value) = Tensor(tensor.dtype, tensor.shape);
  }
  return params;
}

// What the last chunk of a prompt that fills the cache takes.
int64_t ScratchOfChunk(const ModelConfig& config, const DecoderParams& params, DType compute, int64_t capacity) {
  return PlanPass(config, params, compute, {1, std::min(capacity, Engine::kPassTokens), capacity});
}

}  // namespace

int64_t PlanPass(const ModelConfig& config, const DecoderParams& params, DType compute, const PassShape& shape) {
  const auto [sequences, tokens, depth] = shape;
  Decoder decoder(config);
  decoder.EnsurePositions(depth);
  CachePool pool(config, config.num_hidden_layers, sequences * CachePool::BlocksFor(depth), compute);
  std::list<CachedSequence> caches;
  std::vector<CachedSegment> segments;
  for (int64_t i = 0; i < sequences; ++i) {
    caches.emplace_back(pool).Own(0, depth);
    segments.push_back({i * tokens, (i + 1) * tokens, depth - tokens, caches.back().blocks()});
  }
  Arena saved = Arena::Counting(), scratch = Arena::Counting();
  Ctx ctx{saved, scratch, compute};
  const View h = scratch.Alloc(DType::kF32, {sequences * tokens, config.hidden_size});
  decoder.Decode(ctx, params, std::vector<int32_t>(static_cast<size_t>(sequences * tokens)), segments, pool, h);
  Tensor logits(DType::kF32, {sequences, config.vocab_size});
  decoder.Logits(ctx, params, h.Rows(0, sequences), logits.mutable_view());
  return scratch.peak();
}

DecodePlan PlanDecode(const ModelConfig& config, const std::vector<TensorInfo>& stored, DType compute, int64_t capacity) {
  DecodePlan plan;
  const ModelSpec spec(config);
  for (const TensorInfo& tensor : stored) {
    plan.weight_bytes += tensor.NumBytes();
    const ParamSpec* param = ParamOf(spec, tensor.name);
    if (param == nullptr || !IsReadByToken(*param)) continue;
    (param->is_expert() ? plan.expert_bytes : plan.weights_per_token) += tensor.NumBytes();
  }
  if (plan.expert_bytes > 0) plan.experts_per_token = plan.expert_bytes / config.n_routed_experts * config.num_experts_per_tok;
  plan.weights_per_token += plan.experts_per_token;
  plan.cache_bytes = CacheBytes(config, compute, capacity);
  plan.cache_per_token = CachePerToken(config, compute, capacity);
  const PlanScope scope(NumThreads());
  plan.scratch_bytes = ScratchOfChunk(config, PlannedParams(config, stored), compute, capacity);
  return plan;
}

int64_t PlanSequence(const ModelConfig& config, const DecoderParams& params, DType compute, int64_t capacity) {
  const PlanScope scope(NumThreads());
  return CacheBytes(config, compute, capacity) + ScratchOfChunk(config, params, compute, capacity);
}

}  // namespace fathom

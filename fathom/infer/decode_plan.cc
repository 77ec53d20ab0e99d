#include "fathom/infer/decode_plan.h"

#include <algorithm>
#include <cmath>
#include <list>

#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/infer/engine.h"

namespace fathom {
namespace {

// The system's, and as many as it maps around one that is touched.
constexpr int64_t kPage = 4096, kTouched = 16 * kPage;

// Sparse attention reads index_topk latents, and every key of the indexer.
int64_t CachePerToken(const ModelConfig& c, DType compute, int64_t capacity) {
  if (!c.has_indexer()) return CachePool::PlannedBytes(c, c.num_hidden_layers, capacity, compute);
  const int64_t latents = std::min(capacity, c.index_topk) * (c.kv_lora_rank + c.qk_rope_head_dim);
  return c.num_hidden_layers * (latents + capacity * c.index_head_dim) * DTypeSize(compute);
}

int64_t CacheBytes(const ModelConfig& c, DType compute, int64_t capacity, bool drafts = false) {
  return CachePool::PlannedBytes(c, c.num_hidden_layers + (drafts ? 1 : 0), capacity, compute);
}

// The blocks of a pass's sequences, which lie in the pool.
class PlannedSequences {
 public:
  PlannedSequences(const ModelConfig& config, int64_t layers, DType compute, const PassShape& shape)
      : pool_(config, layers, shape.sequences * CachePool::BlocksFor(shape.depth), compute) {
    for (int64_t i = 0; i < shape.sequences; ++i) {
      caches_.emplace_back(pool_).Own(0, shape.depth);
      segments_.push_back({i * shape.tokens, (i + 1) * shape.tokens, shape.depth - shape.tokens, caches_.back().blocks()});
    }
  }
  CachePool& pool() { return pool_; }
  std::span<const CachedSegment> segments() const { return segments_; }

 private:
  CachePool pool_;
  std::list<CachedSequence> caches_;
  std::vector<CachedSegment> segments_;
};

// As the engine computes: each row has the bits that it has alone, unless a prompt's part is long.
Arithmetic ArithmeticOf(const PassShape& shape) { return shape.tokens > Engine::kSharedPart ? Arithmetic::kFastest : Arithmetic::kByRow; }

// As Drafter runs the module over these tokens and predicts what follows each sequence.
void PlanDraft(const ModelConfig& config, const DecoderParams& params, DType compute, const PassShape& shape, const LayerGroups& groups) {
  const int64_t rows = shape.sequences * shape.tokens;
  Decoder decoder(config);
  decoder.EnsurePositions(shape.depth);
  PlannedSequences sequences(config, config.num_hidden_layers + 1, compute, shape);
  Arena saved = Arena::Counting(), scratch = Arena::Counting();
  Ctx ctx{.saved = saved, .scratch = scratch, .compute = compute, .arithmetic = ArithmeticOf(shape), .groups = groups};
  const View states = scratch.Alloc(DType::kF32, {rows, config.hidden_size}), h = scratch.Alloc(DType::kF32, states.shape());
  decoder.Draft(ctx, params, std::vector<int32_t>(static_cast<size_t>(rows)), states, sequences.segments(), sequences.pool(), h);
  Tensor logits(DType::kF32, {shape.sequences, config.vocab_size});
  decoder.DraftLogits(ctx, params, MtpInput::kAfterNorm, h.Rows(0, shape.sequences), logits.mutable_view(),
                      states.Rows(0, shape.sequences));
}

// What the last chunk of a prompt that fills the cache takes.
int64_t ScratchOfChunk(const ModelConfig& config, const DecoderParams& params, DType compute, int64_t capacity,
                       const LayerGroups& groups = OneRank()) {
  return PlanPass(config, params, compute, {1, std::min(capacity, Engine::kPassTokens), capacity}, groups);
}

// One rank's view of a model.
struct Rank {
  const Sharding& sharding;
  const DecoderParams& params;
  DType compute;
  ModelConfig config = sharding.LocalConfig();
  LayerGroups groups = {.tensor = sharding.mesh().comm(Axis::kTensor), .expert = sharding.mesh().comm(Axis::kExpert), .same_tokens = true};
};

// The share of the experts that so many tokens choose, if they choose evenly.
double ChosenShare(const ModelConfig& c, int64_t tokens) {
  const double each = static_cast<double>(c.num_experts_per_tok) / static_cast<double>(c.n_routed_experts);
  return 1 - std::pow(1 - each, static_cast<double>(tokens));
}

int64_t Share(int64_t bytes, double share) { return std::llround(static_cast<double>(bytes) * share); }

// Columns of a matrix lie in pages with the others' columns.
int64_t PagesOf(const Rank& rank, const ParamSpec& param, const Weight& w) {
  const Region part = rank.sharding.Computed(param);
  const int64_t bytes = w.value.NumBytes() + w.scale_inv.NumBytes();
  if (param.shape.rank() != 2 || part.columns() == param.shape[1]) return bytes;
  const int64_t row = param.shape[1] * DTypeSize(w.value.dtype()), own = part.columns() * DTypeSize(w.value.dtype());
  return part.rows() * std::min(row, own + kPage) + w.scale_inv.NumBytes();
}

// Embedding and head are the main model's.
bool IsDraftedWith(const ParamSpec& param, const DecodeShape& shape) {
  return shape.drafts > 0 && param.mtp == 0 && param.role != ParamRole::kMtpEmbedding && param.role != ParamRole::kMtpHead;
}

void AddWeights(const Rank& rank, const DecodeShape& shape, DecodePlan& plan) {
  const ModelConfig& c = rank.config;
  int64_t expert_pages = 0;
  for (const ParamSpec& param : *rank.params.spec) {
    const Weight& w = rank.params[param];
    if (w.value.empty()) continue;
    const int64_t bytes = w.value.NumBytes() + w.scale_inv.NumBytes(), pages = PagesOf(rank, param, w);
    plan.weight_bytes += bytes;
    if (param.is_mtp()) {
      if (IsDraftedWith(param, shape)) plan.page_bytes += pages;
      continue;
    }
    if (param.role == ParamRole::kEmbedding) {  // of which a token reads one row
      plan.page_bytes += std::min(pages, shape.sequences * shape.capacity * std::max(kTouched, pages / param.shape[0]));
      continue;
    }
    (param.is_expert() ? plan.expert_bytes : plan.always_bytes) += bytes;
    (param.is_expert() ? expert_pages : plan.page_bytes) += pages;
  }
  if (expert_pages > 0) plan.page_bytes += Share(expert_pages, ChosenShare(c, shape.sequences * shape.capacity));
}

int64_t WeightsRead(const Rank& rank, const DecodePlan& plan, int64_t tokens) {
  return plan.always_bytes + (plan.expert_bytes > 0 ? Share(plan.expert_bytes, ChosenShare(rank.config, tokens)) : 0);
}

// What `work` does, with rows that are spread evenly over the experts.
PassCost CostOf(const Rank& rank, FunctionRef<void()> work) {
  const PlanScope even(NumThreads(), PlanScope::Rows::kEven);
  const AxisTraffic before = TrafficByAxis(rank.sharding.mesh());
  Trace trace;
  {
    const TraceScope traced(trace);
    work();
  }
  PassCost cost;
  for (const Trace::Slice& slice : trace.slices()) cost.flops += slice.flops;
  cost.traffic = AddTraffic(TrafficByAxis(rank.sharding.mesh()), before, -1);
  return cost;
}

PassCost CostOf(const Rank& rank, const DecodePlan& plan, const PassShape& shape) {
  PassCost cost = CostOf(rank, [&] { PlanPass(rank.config, rank.params, rank.compute, shape, rank.groups); });
  cost.weights = WeightsRead(rank, plan, shape.sequences * shape.tokens);
  return cost;
}

void Add(PassCost& sum, const PassCost& cost, int64_t times) {
  sum.flops += static_cast<double>(times) * cost.flops;
  sum.weights += times * cost.weights;
  sum.traffic = AddTraffic(sum.traffic, cost.traffic, times);
}

// In chunks, of which the last full one sees the most tokens before it and those in between are between it and the first.
PassCost CostOfPrompts(const Rank& rank, const DecodePlan& plan, const DecodeShape& shape) {
  const int64_t full = shape.prompt / Engine::kPassTokens, rest = shape.prompt % Engine::kPassTokens;
  PassCost sum;
  if (full > 0) {
    const PassCost first = CostOf(rank, plan, {1, Engine::kPassTokens, Engine::kPassTokens});
    const PassCost last = full > 1 ? CostOf(rank, plan, {1, Engine::kPassTokens, full * Engine::kPassTokens}) : first;
    Add(sum, first, full * shape.sequences);
    sum.flops *= (first.flops + last.flops) / (2 * first.flops);
  }
  if (rest > 0) Add(sum, CostOf(rank, plan, {1, rest, shape.prompt}), shape.sequences);
  return sum;
}

// Bytes of the module: its experts are read as the others are.
int64_t ModuleRead(const Rank& rank, const DecodeShape& shape, int64_t tokens) {
  int64_t experts = 0, always = 0;
  for (const ParamSpec& param : *rank.params.spec) {
    const Weight& w = rank.params[param];
    if (IsDraftedWith(param, shape)) (param.is_expert() ? experts : always) += w.value.NumBytes() + w.scale_inv.NumBytes();
  }
  return always + (experts > 0 ? Share(experts, ChosenShare(rank.config, tokens)) : 0);
}

// The module over the tokens that the last step gave, then over one draft after the other; the pass over all; and the ranks' clocks are
// compared.
PassCost CostOfDrafts(const Rank& rank, const DecodePlan& plan, const DecodeShape& shape) {
  const int64_t taken = shape.drafts + 1;
  const auto of_module = [&](int64_t tokens) {
    PassCost cost = CostOf(rank, [&] {
      PlanDraft(rank.config, rank.params, rank.compute, {shape.sequences, tokens, shape.capacity}, rank.groups);
    });
    cost.weights = ModuleRead(rank, shape, shape.sequences * tokens);
    return cost;
  };
  PassCost sum = CostOf(rank, plan, {shape.sequences, taken, shape.capacity});
  Add(sum, of_module(taken), 1);
  if (shape.drafts > 1) Add(sum, of_module(1), shape.drafts - 1);
  Add(sum, CostOf(rank, [&] { SlowestOf(rank.groups, 0); }), 1);
  return sum;
}

// Logits of a step, and what the groups keep to sum a chunk.
int64_t BesidesScratch(const Rank& rank, const DecodeShape& shape) {
  int64_t bytes = shape.sequences * rank.config.vocab_size * static_cast<int64_t>(sizeof(float));
  for (const Comm* group : {&rank.groups.tensor, &rank.groups.expert}) {
    if (group->size() > 1) bytes += Comm::SumBytes(std::min(shape.prompt, Engine::kPassTokens) * rank.config.hidden_size);
  }
  return bytes;
}

}  // namespace

int64_t PlanPass(const ModelConfig& config, const DecoderParams& params, DType compute, const PassShape& shape, const LayerGroups& groups) {
  const int64_t rows = shape.sequences * shape.tokens;
  Decoder decoder(config);
  decoder.EnsurePositions(shape.depth);
  PlannedSequences sequences(config, config.num_hidden_layers, compute, shape);
  Arena saved = Arena::Counting(), scratch = Arena::Counting();
  Ctx ctx{.saved = saved, .scratch = scratch, .compute = compute, .arithmetic = ArithmeticOf(shape), .groups = groups};
  const View h = scratch.Alloc(DType::kF32, {rows, config.hidden_size});
  decoder.Decode(ctx, params, std::vector<int32_t>(static_cast<size_t>(rows)), sequences.segments(), sequences.pool(), h);
  Tensor logits(DType::kF32, {shape.sequences, config.vocab_size});
  decoder.Logits(ctx, params, h.Rows(0, shape.sequences), logits.mutable_view());
  return scratch.peak();
}

DecodePlan PlanDecode(const Sharding& sharding, const DecoderParams& params, DType compute, const DecodeShape& shape) {
  const Rank rank{sharding, params, compute};
  DecodePlan plan;
  AddWeights(rank, shape, plan);
  plan.cache_bytes = shape.sequences * CacheBytes(rank.config, compute, shape.capacity, shape.drafts > 0);
  plan.cache_per_step = shape.sequences * CachePerToken(rank.config, compute, shape.capacity);
  const PlanScope scope(NumThreads());
  const int64_t chunk = ScratchOfChunk(rank.config, params, compute, shape.prompt, rank.groups);
  const int64_t of_step = PlanPass(rank.config, params, compute, {shape.sequences, 1, shape.capacity}, rank.groups);
  plan.scratch_bytes = std::max(chunk, of_step) + BesidesScratch(rank, shape);
  plan.prompts = CostOfPrompts(rank, plan, shape);
  plan.step = CostOf(rank, plan, {shape.sequences, 1, shape.capacity});
  if (shape.drafts > 0) plan.drafted_step = CostOfDrafts(rank, plan, shape);
  return plan;
}

int64_t PlanSequence(const ModelConfig& config, const DecoderParams& params, DType compute, int64_t capacity) {
  const PlanScope scope(NumThreads());
  return CacheBytes(config, compute, capacity) + ScratchOfChunk(config, params, compute, capacity);
}

}  // namespace fathom

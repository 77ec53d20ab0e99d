// V3.2's attention layers, whole: with the indexer's choice in its cheapest form beside dense attention (`to_dense`, where the dense case
// ran before it), in a forward, a training step and decoding; and the indexer alone.
#include <algorithm>
#include <numeric>
#include <vector>

#include "bench/attention_bench.h"
#include "fathom/layers/mla.h"

namespace fathom {
namespace {

ModelConfig V32Layer(int64_t heads) {
  ModelConfig c;
  c.family = ModelFamily::kV32;
  c.hidden_size = 56 * heads;
  c.num_attention_heads = heads;
  c.q_lora_rank = 12 * heads;
  c.kv_lora_rank = kLatent;
  c.qk_nope_head_dim = c.v_head_dim = 128;
  c.qk_rope_head_dim = kRope;
  c.index_n_heads = heads / 2;
  c.index_head_dim = kIndexer.head_dim;
  c.index_topk = kTopK;
  return c;
}

MlaParams V32Params(Buffers& b, const ModelConfig& c) {
  const int64_t d = c.hidden_size, heads = c.num_attention_heads;
  MlaParams p;
  const auto ones = [&](int64_t n) {
    Weight w{Tensor(DType::kF32, {n}), {}, {}};
    std::fill_n(w.value.mutable_data<float>(), n, 1.0f);
    return w;
  };
  p.q_a_proj = RandomWeight(b, {c.q_lora_rank, d});
  p.q_a_layernorm = ones(c.q_lora_rank);
  p.q_b_proj = RandomWeight(b, {heads * c.qk_head_dim(), c.q_lora_rank});
  p.kv_a_proj_with_mqa = RandomWeight(b, {kLatent + kRope, d});
  p.kv_a_layernorm = ones(kLatent);
  p.kv_b_proj = RandomWeight(b, {heads * (c.qk_nope_head_dim + c.v_head_dim), kLatent});
  p.o_proj = RandomWeight(b, {d, heads * c.v_head_dim});
  p.indexer = {RandomWeight(b, {c.index_n_heads * kIndexer.head_dim, c.q_lora_rank}), RandomWeight(b, {kIndexer.head_dim, d}),
               ones(kIndexer.head_dim), ones(kIndexer.head_dim), RandomWeight(b, {c.index_n_heads, d})};
  return p;
}

// A whole attention layer over one document, V3.2's widths (in proportion where it has fewer heads) and its own indexer's choice, forward
// and in a training step. What the indexer learns is not in it. arguments: tokens, heads, kind, backward
void BM_Layer(benchmark::State& state) {
  const int64_t tokens = state.range(0);
  const Kind kind{state.range(2)};
  const ModelConfig c = V32Layer(state.range(1));
  const Mla layer(c, {.chosen_form = FormOf(kind)});
  Buffers b(DType::kBF16);
  const MlaParams p = V32Params(b, c);
  MlaParams grad;
  const auto like = [](const Weight& w) { return Weight{Tensor(DType::kF32, w.value.shape()), {}, {}}; };
  for (const auto member : {&MlaParams::q_a_proj, &MlaParams::q_a_layernorm, &MlaParams::q_b_proj, &MlaParams::kv_a_proj_with_mqa,
                            &MlaParams::kv_a_layernorm, &MlaParams::kv_b_proj, &MlaParams::o_proj}) {
    grad.*member = like(p.*member);
  }
  std::vector<int32_t> positions(static_cast<size_t>(tokens));
  std::iota(positions.begin(), positions.end(), 0);
  const Segment all{0, tokens, 0, tokens};
  const TokenLayout layout{positions, {&all, 1}, 0, kind == kDense};
  const RopeTable rope(c, tokens);
  const AttentionInputs in{{layout, rope}, b.Matrix(tokens, c.hidden_size)};
  const View y = b.Matrix(tokens, c.hidden_size, DType::kF32), dx = b.Matrix(tokens, c.hidden_size, DType::kF32);
  Ctx ctx{b.scratch(), b.scratch(), DType::kBF16};
  Mla::Saved saved = layer.Allocate(ctx.saved, ctx.compute, tokens);
  Time(state, tokens, kind,
       [&] {
         Mla::Saved step = saved;
         layer.Forward(ctx, p, in, y, step);
         if (state.range(3) != 0) layer.Backward(ctx, p, in, step, in.x, dx, grad);
       },
       {tokens, state.range(1), state.range(3)});
}
BENCHMARK(BM_Layer)
    ->Apply([](auto* b) {
      for (const int64_t heads : {32, 128}) {
        for (const int64_t backward : {0, 1}) {
          for (const int64_t tokens : {1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768}) {
            for (const int64_t kind : {kDense, kCheapest}) b->Args({tokens, heads, kind, backward});
          }
        }
      }
    }) -> UseRealTime() -> Unit(benchmark::kMillisecond) -> MinTime(0.2);

// One decoded token through a whole attention layer, whose cache and weights come from memory. arguments: context, heads, kind
void BM_DecodeLayer(benchmark::State& state) {
  const int64_t context = state.range(0), layers = 128 / state.range(1);
  const Kind kind{state.range(2)};
  ModelConfig c = V32Layer(state.range(1));
  if (kind == kDense) c.index_topk = 0;
  const Mla layer(c, {});
  Buffers b(DType::kBF16);
  std::vector<MlaParams> params;
  CachePool pool(c, layers, CachePool::BlocksFor(context), DType::kBF16);
  for (int64_t i = 0; i < layers; ++i) {
    params.push_back(V32Params(b, c));
    for (Tensor* t : {&pool.layer(i).latent_rope, &pool.layer(i).indexer_keys}) {
      if (t->empty()) continue;
      const ArenaScope scope(b.scratch());
      Cast(b.Matrix(t->dim(0), t->dim(1)), t->mutable_view());
    }
  }
  std::vector<int32_t> blocks(static_cast<size_t>(pool.blocks()));
  std::iota(blocks.begin(), blocks.end(), 0);
  const CachedSegment segment{0, 1, context - 1, blocks};
  const std::vector<int32_t> positions{static_cast<int32_t>(context - 1)};
  const std::vector<int64_t> visible{context};
  const std::vector<BlockTable> tables{blocks};
  const CachedRows rows{{&segment, 1}, positions, visible, tables};
  const RopeTable rope(c, context);
  const View x = b.Matrix(1, c.hidden_size), y = b.Matrix(1, c.hidden_size, DType::kF32);
  Arena saved(1 << 20);
  Ctx ctx{saved, b.scratch(), DType::kBF16};
  const auto token = [&] {
    for (int64_t i = 0; i < layers; ++i) layer.ForwardCached(ctx, params[static_cast<size_t>(i)], {rows, rope, pool.layer(i)}, x, y);
  };
  Time(state, layers, kind, token, {context, state.range(1)});
}
BENCHMARK(BM_DecodeLayer)
    ->ArgsProduct({{1024, 2048, 2304, 4096, 16384, 32768}, {32, 128}, {kDense, kCheapest}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond)
    ->MinTime(0.2);

// The indexer's own share: scores of all keys and the choice. arguments: tokens, context
void BM_Indexer(benchmark::State& state) {
  const int64_t tokens = state.range(0), context = state.range(1);
  Buffers b(DType::kBF16);
  const View q = b.Matrix(tokens, kIndexer.heads * kIndexer.head_dim), k = b.Matrix(context, kIndexer.head_dim);
  const View weights = b.Matrix(tokens, kIndexer.heads, DType::kF32);
  const std::vector<Segment> segments{{0, tokens, 0, context}};
  std::vector<int32_t> chosen(static_cast<size_t>(tokens * kTopK));
  for (auto _ : state) IndexerTopK({kIndexer, q, k, weights}, segments, kTopK, chosen, View(), b.scratch());
  const auto n = static_cast<double>(tokens * state.iterations()), scores = n * static_cast<double>(context);
  state.counters["s/token"] = benchmark::Counter(n, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * scores * static_cast<double>(kIndexer.heads * kIndexer.head_dim), benchmark::Counter::kIsRate);
}
BENCHMARK(BM_Indexer)->ArgsProduct({{1, 32}, {4096, 16384, 65536}})->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fathom

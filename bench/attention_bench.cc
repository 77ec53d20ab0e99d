// Attention at bench-train's shape and at DeepSeek-V3.2's, with 16 and with all 128 heads. The kernels beside what this machine multiplies
// and reads; prefill and training steps as seconds per token against the length of the context, dense and with 2048 chosen
// keys in each form. Whatever is timed has run once before.
#include "bench/attention_bench.h"

#include <numeric>
#include <string>
#include <vector>

#include "bench/rates.h"
#include "fathom/kernels/attention/mla_decode.h"
#include "fathom/layers/chosen_attention.h"

namespace fathom {
namespace {

// Of each measurement, the median of which is what counts: the long ones take one turn each.
constexpr int kRepetitions = 3;
constexpr MlaShape kBenchTrain{8, 64, 32, 64, 0.102f};

void Report(benchmark::State& state, double flops, double tokens, DType dtype) {
  const double n = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(flops * n * 1e-9, benchmark::Counter::kIsRate);
  state.counters["of_peak"] = benchmark::Counter(flops * n / UnitRate(dtype), benchmark::Counter::kIsRate);
  state.counters["of_gemm_rate"] = benchmark::Counter(flops * n / ProductRate(dtype), benchmark::Counter::kIsRate);
  state.counters["s/token"] = benchmark::Counter(tokens * n, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.SetLabel(std::string(DTypeName(dtype)));
}

// arguments: heads (0: bench-train's shape), segments, tokens in each, dtype, backward
void BM_Training(benchmark::State& state) {
  const MlaShape s = state.range(0) == 0 ? kBenchTrain : V32Heads(state.range(0));
  const int64_t count = state.range(1), length = state.range(2), tokens = count * length, width = s.nope_dim + s.rope_dim;
  const auto dtype = static_cast<DType>(state.range(3));
  Buffers b(dtype);
  std::vector<Segment> segments;
  for (int64_t i = 0; i < count; ++i) segments.push_back({i * length, (i + 1) * length, i * length, (i + 1) * length});
  const View q = b.Matrix(tokens, s.heads * width), kv = b.Matrix(tokens, s.heads * (s.nope_dim + s.v_dim)),
             k_rope = b.Matrix(tokens, s.rope_dim);
  const View o = b.Matrix(tokens, s.heads * s.v_dim), d_o = b.Matrix(tokens, s.heads * s.v_dim),
             lse = b.Matrix(tokens, s.heads, DType::kF32);
  const View dq = b.Matrix(q.dim(0), q.dim(1)), dkv = b.Matrix(kv.dim(0), kv.dim(1)), dk_rope = b.Matrix(tokens, s.rope_dim);
  const auto forward = [&] { MlaAttentionForward(s, segments, {q, kv, k_rope}, o, lse, b.scratch()); };
  const auto backward = [&] { MlaAttentionBackward(s, segments, {q, kv, k_rope}, {o, lse, d_o}, {dq, dkv, dk_rope}, b.scratch()); };
  forward();
  if (state.range(4) != 0) backward();
  for (auto _ : state) state.range(4) != 0 ? backward() : forward();
  const double pairs = static_cast<double>(count * s.heads) * static_cast<double>(length * (length + 1)) / 2;
  const int64_t per_pair = state.range(4) != 0 ? 3 * width + 2 * s.v_dim : width + s.v_dim;
  Report(state, 2 * pairs * static_cast<double>(per_pair), static_cast<double>(tokens), dtype);
}
void TrainingCases(benchmark::internal::Benchmark* b) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t backward : {0, 1}) {
      b->Args({0, 4, 512, static_cast<int64_t>(dtype), backward});
      b->Args({16, 1, 512, static_cast<int64_t>(dtype), backward});
      b->Args({16, 1, 4096, static_cast<int64_t>(dtype), backward});
    }
  }
}
BENCHMARK(BM_Training)
    ->Apply(TrainingCases)
    ->Repetitions(kRepetitions)
    ->ReportAggregatesOnly()
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// n of rows 0..context, rising.
std::vector<int32_t> RandomRows(int64_t n, int64_t context, int64_t stream) {
  std::vector<int32_t> rows;
  const CounterRng rng(3, static_cast<uint64_t>(stream));
  for (int64_t row = 0; std::ssize(rows) < n; ++row) {
    const auto left = static_cast<uint64_t>(n - std::ssize(rows));
    if (rng.Below(static_cast<uint64_t>(row), static_cast<uint64_t>(context - row)) < left) rows.push_back(static_cast<int32_t>(row));
  }
  return rows;
}

// One decoded token, absorbed form. arguments: heads, context, dtype of the cache, sparse
void BM_Decode(benchmark::State& state) {
  const int64_t heads = state.range(0), context = state.range(1);
  const auto dtype = static_cast<DType>(state.range(2));
  Buffers b(dtype);
  const MlaDecodeShape s{heads, kLatent, kRope, 0.0722f};
  const View q_latent = b.Matrix(1, heads * kLatent, DType::kF32), q_rope = b.Matrix(1, heads * kRope, DType::kF32);
  // Several caches, so that each is read from memory as it is between the layers of a model.
  const int64_t copies = std::max<int64_t>(1, (int64_t{96} << 20) / (context * (kLatent + kRope) * DTypeSize(dtype)));
  const View caches = b.Matrix(copies * context, kLatent + kRope), o = b.Matrix(1, heads * kLatent, DType::kF32);
  const std::vector<int32_t> chosen = state.range(3) != 0 ? RandomRows(std::min(kTopK, context), context, 0) : std::vector<int32_t>();
  const std::vector<int64_t> visible{context};
  int64_t copy = 0;
  for (auto _ : state) {
    const ConstView cache = caches.Rows(copy * context, (copy + 1) * context);
    MlaDecode(s, {q_latent, q_rope, cache, visible, chosen, std::ssize(chosen)}, o, {}, b.scratch());
    copy = (copy + 1) % copies;
  }
  const double rows = static_cast<double>(chosen.empty() ? context : std::min(context, kTopK));
  Report(state, 2 * rows * static_cast<double>(heads * (2 * kLatent + kRope)), 1, dtype);
  const double bytes = rows * static_cast<double>((kLatent + kRope) * DTypeSize(dtype)) * static_cast<double>(state.iterations());
  state.counters["of_read_rate"] = benchmark::Counter(bytes / ReadRate(), benchmark::Counter::kIsRate);
}
void DecodeCases(benchmark::internal::Benchmark* b) {
  for (const int64_t heads : {16, 128}) {
    for (const int64_t context : {1024, 4096, 16384, 65536}) {
      for (const int64_t sparse : {0, 1}) b->Args({heads, context, static_cast<int64_t>(DType::kBF16), sparse});
    }
    b->Args({heads, 4096, static_cast<int64_t>(DType::kF32), 0});
  }
}
BENCHMARK(BM_Decode)->Apply(DecodeCases)->Repetitions(kRepetitions)->ReportAggregatesOnly()->UseRealTime()->Unit(benchmark::kMicrosecond);

// Each query's keys: at random, the worst case for sharing, or half of them its neighbours and half the same for all queries.
enum Overlap : int64_t { kRandom, kNeighbours };
std::vector<int32_t> ChoiceOf(Overlap overlap, int64_t first, int64_t queries) {
  std::vector<int32_t> chosen(static_cast<size_t>(queries * kTopK), -1);
  for (int64_t t = 0; t < queries; ++t) {
    const int64_t context = first + t + 1, near = overlap == kNeighbours ? std::min(kTopK / 2, context) : 0;
    const int64_t far = std::min(kTopK - near, context - near);
    std::vector<int32_t> list = RandomRows(far, context - near, overlap == kNeighbours ? 0 : t);
    for (int64_t i = context - near; i < context; ++i) list.push_back(static_cast<int32_t>(i));
    std::copy(list.begin(), list.end(), chosen.begin() + t * kTopK);
  }
  return chosen;
}

void ContextCases(benchmark::internal::Benchmark* b, const std::vector<int64_t>& contexts) {
  for (const int64_t heads : {16, 32, 128}) {
    for (const int64_t context : contexts) {
      b->Args({context, heads, kDense, kRandom});
      if (context <= kTopK) continue;
      for (const Overlap overlap : {kRandom, kNeighbours}) {
        for (const Kind kind : {kCheapest, kAbsorbed, kShared}) b->Args({context, heads, kind, overlap});
      }
    }
  }
  b->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2)->Repetitions(kRepetitions)->ReportAggregatesOnly();
}

// A pass of prefill: 512 tokens at the end of a context whose latents lie in the cache. What attention needs of them is expanded.
// arguments: context, heads, kind, overlap
void BM_Prefill(benchmark::State& state) {
  const int64_t context = state.range(0), tokens = 512;
  const MlaShape s = V32Heads(state.range(1));
  const Kind kind{state.range(2)};
  Buffers b(DType::kBF16);
  const Weight kv_b_proj = RandomWeight(b, {s.heads * (s.nope_dim + s.v_dim), kLatent});
  const View cache = b.Matrix(context, kLatent + kRope);
  const View q = b.Matrix(tokens, s.heads * (s.nope_dim + s.rope_dim)), o = b.Matrix(tokens, s.heads * s.v_dim);
  Arena saved(1 << 20);
  Ctx ctx{saved, b.scratch(), DType::kBF16};
  if (kind == kDense) {
    const Segment all{0, tokens, 0, context};
    return Time(state, tokens, kind, [&] {
      ArenaScope scope(ctx.scratch);
      const View kv = ctx.scratch.Alloc(ctx.compute, {context, s.heads * (s.nope_dim + s.v_dim)});
      LinearForward(ctx, kv_b_proj, cache.Cols(0, kLatent), kv);
      MlaAttentionForward(s, {&all, 1}, {q, kv, cache.Cols(kLatent, kLatent + kRope)}, o, View(), ctx.scratch);
    });
  }
  const std::vector<int32_t> chosen = ChoiceOf(Overlap{state.range(3)}, context - tokens, tokens);
  std::vector<int32_t> blocks(static_cast<size_t>(context / kCacheBlock));
  std::iota(blocks.begin(), blocks.end(), 0);
  const std::vector<BlockTable> tables(static_cast<size_t>(tokens), blocks);
  const std::vector<int64_t> visible(static_cast<size_t>(tokens), context);
  const CachedSegment segment{0, tokens, context - tokens, blocks};
  const CachedRows rows{{&segment, 1}, {}, visible, tables};
  Time(state, tokens, kind, [&] { ChosenAttentionCached(ctx, {s, kv_b_proj, rows, segment, {chosen, kTopK}, FormOf(kind), cache}, q, o); });
}
BENCHMARK(BM_Prefill)->Apply([](auto* b) { ContextCases(b, {1024, 4096, 8192, 16384}); });

// Attention's forward and backward in a training step: the last 512 tokens of a document, whose keys are expanded anyhow.
// arguments: context, heads, kind, overlap
void BM_TrainingStep(benchmark::State& state) {
  const int64_t context = state.range(0), tokens = 512;
  const MlaShape s = V32Heads(state.range(1));
  const Kind kind{state.range(2)};
  Buffers b(DType::kBF16);
  const Segment segment{0, tokens, 0, context};
  const View q = b.Matrix(tokens, s.heads * (s.nope_dim + s.rope_dim)), dq = b.Matrix(q.dim(0), q.dim(1));
  const View o = b.Matrix(tokens, s.heads * s.v_dim), lse = b.Matrix(tokens, s.heads, DType::kF32);
  const View kv = b.Matrix(context, s.heads * (s.nope_dim + s.v_dim)), k_rope = b.Matrix(context, s.rope_dim);
  const View dkv = b.Matrix(kv.dim(0), kv.dim(1)), dk_rope = b.Matrix(context, s.rope_dim);
  const MlaInputs in{q, kv, k_rope};
  if (kind == kDense) {
    return Time(state, tokens, kind, [&] {
      MlaAttentionForward(s, {&segment, 1}, in, o, lse, b.scratch());
      MlaAttentionBackward(s, {&segment, 1}, in, {o, lse, o}, {dq, dkv, dk_rope}, b.scratch());
    });
  }
  const Weight kv_b_proj = RandomWeight(b, {s.heads * (s.nope_dim + s.v_dim), kLatent});
  Weight grad{Tensor(DType::kF32, kv_b_proj.value.shape()), {}, {}};
  const View latent = b.Matrix(context, kLatent), d_rows = b.Matrix(context, kLatent + kRope, DType::kF32);
  const std::vector<int32_t> chosen = ChoiceOf(Overlap{state.range(3)}, context - tokens, tokens);
  const ChosenAttention a{s, kv_b_proj, {&segment, 1}, {chosen, kTopK}, FormOf(kind), in, latent};
  Arena saved(1 << 20);
  Ctx ctx{saved, b.scratch(), DType::kBF16};
  Time(state, tokens, kind, [&] {
    ChosenAttentionForward(ctx, a, o, lse);
    ChosenAttentionBackward(ctx, a, {o, lse, o}, {dq, dkv, d_rows}, grad);
  });
}
BENCHMARK(BM_TrainingStep)->Apply([](auto* b) { ContextCases(b, {1024, 4096, 8192, 16384}); });

}  // namespace
}  // namespace fathom

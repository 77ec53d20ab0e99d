// Attention at bench-train's shape and at DeepSeek-V3.2's, with 16 and with all 128 heads. The kernels beside what this machine multiplies
// and reads; prefill and training steps as seconds per token against the length of the context, dense and with 2048 chosen keys.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/kernels/attention/mla_decode.h"
#include "fathom/kernels/indexer/indexer.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/layers/latent_attention.h"
#include "fathom/machine/limits.h"

namespace fathom {
namespace {

constexpr int64_t kTopK = 2048, kLatent = 512, kRope = 64;
constexpr MlaShape kBenchTrain{8, 64, 32, 64, 0.102f};
constexpr MlaShape V32Heads(int64_t heads) { return {heads, 128, kRope, 128, 0.0722f}; }
constexpr IndexerShape kIndexer{64, 128};

double ProductRate(DType type) {
  static const double f32 = MeasureProducts(DType::kF32).median * 1e9;
  static const double bf16 = HasNativeBF16() ? MeasureProducts(DType::kBF16).median * 1e9 : f32;
  return type == DType::kBF16 ? bf16 : f32;
}

// Inputs in one arena, as activations lie in a run.
class Buffers {
 public:
  explicit Buffers(DType dtype, int64_t bytes = int64_t{64} << 30) : dtype_(dtype), arena_(bytes) {}
  View Matrix(int64_t rows, int64_t columns) { return Matrix(rows, columns, dtype_); }
  View Matrix(int64_t rows, int64_t columns, DType dtype) {
    const View v = arena_.Alloc(dtype, {rows, columns});
    const CounterRng rng(1, static_cast<uint64_t>(arena_.used()));
    ParallelRanges(rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * columns; i < end * columns; ++i) {
        const float x = static_cast<float>(rng.Uniform(static_cast<uint64_t>(i))) * 2 - 1;
        if (dtype == DType::kF32) v.data<float>()[i] = x;
        if (dtype == DType::kBF16) v.data<BF16>()[i] = ToBF16(x);
      }
    });
    return v;
  }
  Arena& scratch() { return arena_; }

 private:
  DType dtype_;
  Arena arena_;
};

void Report(benchmark::State& state, double flops, double tokens, DType dtype) {
  const double n = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(flops * n * 1e-9, benchmark::Counter::kIsRate);
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
  MlaAttentionForward(s, segments, {q, kv, k_rope}, o, lse, b.scratch());
  for (auto _ : state) {
    if (state.range(4) != 0) {
      MlaAttentionBackward(s, segments, {q, kv, k_rope}, {o, lse, d_o}, {dq, dkv, dk_rope}, b.scratch());
    } else {
      MlaAttentionForward(s, segments, {q, kv, k_rope}, o, lse, b.scratch());
    }
  }
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
BENCHMARK(BM_Training)->Apply(TrainingCases)->UseRealTime()->Unit(benchmark::kMillisecond);

// A random choice of kTopK of `context` rows for each of `queries`, rising.
std::vector<int32_t> RandomChoice(int64_t queries, int64_t context) {
  std::vector<int32_t> chosen(static_cast<size_t>(queries * kTopK), -1);
  for (int64_t t = 0; t < queries; ++t) {
    const CounterRng rng(3, static_cast<uint64_t>(t));
    int64_t left = std::min(kTopK, context), at = 0;
    for (int64_t row = 0; left > 0; ++row) {
      if (rng.Below(static_cast<uint64_t>(row), static_cast<uint64_t>(context - row)) >= static_cast<uint64_t>(left)) continue;
      chosen[static_cast<size_t>(t * kTopK + at++)] = static_cast<int32_t>(row);
      --left;
    }
  }
  return chosen;
}

// One decoded token, absorbed form. arguments: heads, context, dtype of the cache, sparse
void BM_Decode(benchmark::State& state) {
  const int64_t heads = state.range(0), context = state.range(1);
  const auto dtype = static_cast<DType>(state.range(2));
  static const double read_rate = MeasureMemoryRead().median * 1e9;
  Buffers b(dtype);
  const MlaDecodeShape s{heads, kLatent, kRope, 0.0722f};
  const View q_latent = b.Matrix(1, heads * kLatent, DType::kF32), q_rope = b.Matrix(1, heads * kRope, DType::kF32);
  // Several caches, so that each is read from memory as it is between the layers of a model.
  const int64_t copies = std::max<int64_t>(1, (int64_t{96} << 20) / (context * (kLatent + kRope) * DTypeSize(dtype)));
  const View caches = b.Matrix(copies * context, kLatent + kRope), o = b.Matrix(1, heads * kLatent, DType::kF32);
  const std::vector<int32_t> chosen = state.range(3) != 0 ? RandomChoice(1, context) : std::vector<int32_t>();
  const std::vector<int64_t> visible{context};
  int64_t copy = 0;
  for (auto _ : state) {
    const ConstView cache = caches.Rows(copy * context, (copy + 1) * context);
    MlaDecode(s, {q_latent, q_rope, cache, visible, chosen, kTopK}, o, {}, b.scratch());
    copy = (copy + 1) % copies;
  }
  const double rows = static_cast<double>(chosen.empty() ? context : std::min(context, kTopK));
  Report(state, 2 * rows * static_cast<double>(heads * (2 * kLatent + kRope)), 1, dtype);
  const double bytes = rows * static_cast<double>((kLatent + kRope) * DTypeSize(dtype)) * static_cast<double>(state.iterations());
  state.counters["of_read_rate"] = benchmark::Counter(bytes / read_rate, benchmark::Counter::kIsRate);
}
void DecodeCases(benchmark::internal::Benchmark* b) {
  for (const int64_t heads : {16, 128}) {
    for (const int64_t context : {1024, 4096, 16384, 65536}) {
      for (const int64_t sparse : {0, 1}) b->Args({heads, context, static_cast<int64_t>(DType::kBF16), sparse});
    }
    b->Args({heads, 4096, static_cast<int64_t>(DType::kF32), 0});
  }
}
BENCHMARK(BM_Decode)->Apply(DecodeCases)->UseRealTime()->Unit(benchmark::kMicrosecond);

// The absorbed form's inputs for V3.2's shapes: a weight, latents of every token, and its own scratch.
struct Absorbed {
  explicit Absorbed(Buffers& b, const MlaShape& shape, int64_t tokens)
      : weight{Tensor(DType::kBF16, {shape.heads * (shape.nope_dim + shape.v_dim), kLatent}), {}},
        rows(b.Matrix(tokens, kLatent + shape.rope_dim)) {
    Cast(b.Matrix(weight.value.dim(0), kLatent), weight.value.mutable_view());
  }
  LatentAttention Of(const MlaShape& shape, std::span<const Segment> segments, std::span<const int32_t> chosen) const {
    return {shape, weight, segments, chosen, kTopK, rows};
  }
  Weight weight;
  View rows;
  Arena saved{1 << 20};
};

// arguments of the two below: context, heads, sparse. Dense attention takes the expanded form, its keys and values made before; sparse the
// absorbed one, with its products into and out of the latent space.
void ContextCases(benchmark::internal::Benchmark* b, const std::vector<int64_t>& contexts) {
  for (const int64_t heads : {16, 128}) {
    for (const int64_t context : contexts) {
      for (const int64_t sparse : {0, 1}) b->Args({context, heads, sparse});
    }
  }
  b->UseRealTime()->Unit(benchmark::kMillisecond)->Iterations(1);
}

void ReportTokens(benchmark::State& state, int64_t tokens) {
  state.counters["s/token"] =
      benchmark::Counter(static_cast<double>(tokens * state.iterations()), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// 64 tokens at the end of a context.
void BM_Prefill(benchmark::State& state) {
  constexpr int64_t kTokens = 64;
  const int64_t context = state.range(0);
  const MlaShape s = V32Heads(state.range(1));
  Buffers b(DType::kBF16);
  const std::vector<Segment> segments{{0, kTokens, 0, context}};
  const View q = b.Matrix(kTokens, s.heads * (s.nope_dim + s.rope_dim)), o = b.Matrix(kTokens, s.heads * s.v_dim);
  if (state.range(2) != 0) {
    const std::vector<int32_t> chosen = RandomChoice(kTokens, context - kTokens + 1);
    Absorbed a(b, s, context);
    Ctx ctx{a.saved, b.scratch(), DType::kBF16};
    for (auto _ : state) LatentAttentionForward(ctx, a.Of(s, segments, chosen), q, o, {});
  } else {
    const View kv = b.Matrix(context, s.heads * (s.nope_dim + s.v_dim)), k_rope = b.Matrix(context, s.rope_dim);
    for (auto _ : state) MlaAttentionForward(s, segments, {q, kv, k_rope}, o, View(), b.scratch());
  }
  ReportTokens(state, kTokens);
}
BENCHMARK(BM_Prefill)->Apply([](auto* b) { ContextCases(b, {1024, 4096, 16384, 65536}); });

// Forward and backward of a training step: dense of a whole sequence, sparse of its last 256 tokens (every one chooses as many keys).
void BM_TrainingStep(benchmark::State& state) {
  const int64_t context = state.range(0), tokens = state.range(2) != 0 ? 256 : context;
  const MlaShape s = V32Heads(state.range(1));
  Buffers b(DType::kBF16);
  const std::vector<Segment> segments{{0, tokens, 0, context}};
  const View q = b.Matrix(tokens, s.heads * (s.nope_dim + s.rope_dim)), dq = b.Matrix(q.dim(0), q.dim(1));
  const View o = b.Matrix(tokens, s.heads * s.v_dim), lse = b.Matrix(tokens, s.heads, DType::kF32);
  if (state.range(2) != 0) {
    const std::vector<int32_t> chosen = RandomChoice(tokens, context - tokens + 1);
    Absorbed a(b, s, context);
    Ctx ctx{a.saved, b.scratch(), DType::kBF16};
    const View d_rows = b.Matrix(context, a.rows.dim(1), DType::kF32);
    Weight grad{Tensor(DType::kF32, a.weight.value.shape()), {}};
    for (auto _ : state) {
      LatentAttentionForward(ctx, a.Of(s, segments, chosen), q, o, lse);
      LatentAttentionBackward(ctx, a.Of(s, segments, chosen), {q, o, lse, o, dq}, d_rows, grad);
    }
  } else {
    const View kv = b.Matrix(context, s.heads * (s.nope_dim + s.v_dim)), k_rope = b.Matrix(context, s.rope_dim);
    const View dkv = b.Matrix(kv.dim(0), kv.dim(1)), dk_rope = b.Matrix(context, s.rope_dim);
    for (auto _ : state) {
      MlaAttentionForward(s, segments, {q, kv, k_rope}, o, lse, b.scratch());
      MlaAttentionBackward(s, segments, {q, kv, k_rope}, {o, lse, o}, {dq, dkv, dk_rope}, b.scratch());
    }
  }
  ReportTokens(state, tokens);
}
BENCHMARK(BM_TrainingStep)->Apply([](auto* b) {
  ContextCases(b, {1024, 4096, 16384});
  for (const int64_t sparse : {0, 1}) b->Args({65536, 4, sparse});  // 128 heads would take an hour
});

// The indexer's own share: scores of all keys and the choice. arguments: tokens, context
void BM_Indexer(benchmark::State& state) {
  const int64_t tokens = state.range(0), context = state.range(1);
  Buffers b(DType::kBF16);
  const View q = b.Matrix(tokens, kIndexer.heads * kIndexer.head_dim), k = b.Matrix(context, kIndexer.head_dim);
  const View weights = b.Matrix(tokens, kIndexer.heads, DType::kF32);
  const std::vector<Segment> segments{{0, tokens, 0, context}};
  std::vector<int32_t> chosen(static_cast<size_t>(tokens * kTopK));
  for (auto _ : state) IndexerTopK({kIndexer, q, k, weights}, segments, kTopK, chosen, View(), b.scratch());
  Report(state, 2.0 * static_cast<double>(tokens * context * kIndexer.heads * kIndexer.head_dim), static_cast<double>(tokens),
         DType::kBF16);
}
BENCHMARK(BM_Indexer)->ArgsProduct({{1, 32}, {4096, 16384, 65536}})->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fathom

// Matrix products at the shapes of a training step, beside what the vector units do on registers alone (of_peak; a matrix unit may exceed
// it) and beside the machine's rate on large square products (of_gemm_rate; ours or oneDNN's, whichever is faster).
#include <benchmark/benchmark.h>

#include <vector>

#include "bench/rates.h"
#include "fathom/base/rng.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/gemm/gemm.h"
#include "fathom/tensor/tensor.h"

namespace fathom {
namespace {

enum Kind : int64_t { kNT, kNN, kTN };
constexpr const char* kKindNames[] = {"NT", "NN", "TN"};
// Outputs and inputs of the linear layers of a small V3; the last counts for each of 16 experts.
struct Layer {
  const char* name;
  int64_t n, k;
};
constexpr Layer kLayers[] = {{"q_a", 256, 512},    {"q_b", 768, 256},         {"kv_a", 160, 512},  {"kv_b", 1024, 128}, {"o", 512, 512},
                             {"dense", 1408, 512}, {"dense_down", 512, 1408}, {"head", 8192, 512}, {"router", 16, 512}};
constexpr Layer kExpertLayers[] = {{"gate", 256, 512}, {"down", 512, 256}};
constexpr int64_t kTokens = 2048, kExperts = 16, kChosen = 4;

Tensor Random(DType type, Shape shape, uint64_t seed) {
  Tensor f32(DType::kF32, shape);
  const CounterRng rng(seed, 0);
  for (int64_t i = 0; i < shape.NumElements(); ++i)
    f32.mutable_data<float>()[i] = static_cast<float>(rng.Uniform(static_cast<uint64_t>(i)) - 0.5);
  if (type == DType::kF32) return f32;
  Tensor out(type, shape);
  Cast(f32, out.mutable_view());
  return out;
}

void Report(benchmark::State& state, const Layer& layer, Kind kind, DType x, DType w, int64_t rows) {
  const double flops = 2.0 * static_cast<double>(rows * layer.n * layer.k) * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsRate);
  state.counters["of_peak"] = benchmark::Counter(flops / UnitRate(x), benchmark::Counter::kIsRate);
  state.counters["of_gemm_rate"] = benchmark::Counter(flops / ProductRate(x), benchmark::Counter::kIsRate);
  state.SetLabel(std::string(layer.name) + " " + kKindNames[kind] + " " + std::string(DTypeName(x)) + " x, " + std::string(DTypeName(w)) +
                 " w");
}

// arguments: layer, kind, dtype of activations, dtype of weights
void BM_Linear(benchmark::State& state) {
  const Layer layer = kLayers[state.range(0)];
  const auto kind = static_cast<Kind>(state.range(1));
  const auto x_type = static_cast<DType>(state.range(2)), w_type = static_cast<DType>(state.range(3));
  const Tensor x = Random(x_type, {kTokens, layer.k}, 1), dy = Random(x_type, {kTokens, layer.n}, 2),
               w = Random(w_type, {layer.n, layer.k}, 3);
  Tensor y(x_type, {kTokens, layer.n}), dx(x_type, {kTokens, layer.k}), dw(DType::kF32, {layer.n, layer.k});
  Arena scratch(GemmScratchBytes(kTokens, layer.n, layer.k));
  for (auto _ : state) {
    if (kind == kNT) MatMulNT(x, {w, {}}, y.mutable_view(), Write::kOverwrite, scratch);
    if (kind == kNN) MatMulNN(dy, {w, {}}, dx.mutable_view(), Write::kOverwrite, scratch);
    if (kind == kTN) MatMulTN(dy, x, dw.mutable_view(), Write::kAdd, scratch);
  }
  Report(state, layer, kind, x_type, w_type, kTokens);
}

// Experts get about 512 rows each, as a router spreads them.
void BM_Grouped(benchmark::State& state) {
  const Layer layer = kExpertLayers[state.range(0)];
  const auto kind = static_cast<Kind>(state.range(1));
  const auto x_type = static_cast<DType>(state.range(2)), w_type = static_cast<DType>(state.range(3));
  const int64_t rows = kTokens * kChosen;
  const Tensor x = Random(x_type, {rows, layer.k}, 1), dy = Random(x_type, {rows, layer.n}, 2),
               w = Random(w_type, {kExperts * layer.n, layer.k}, 3);
  Tensor y(x_type, {rows, layer.n}), dx(x_type, {rows, layer.k}), dw(DType::kF32, {kExperts * layer.n, layer.k});
  std::vector<WeightView> weights;
  std::vector<View> gradients;
  std::vector<int64_t> begin = {0};
  for (int64_t e = 0; e < kExperts; ++e) {
    weights.push_back({w.view().Rows(e * layer.n, (e + 1) * layer.n), {}});
    gradients.push_back(dw.mutable_view().Rows(e * layer.n, (e + 1) * layer.n));
    begin.push_back(e + 1 == kExperts ? rows : begin.back() + 512 + (e % 5 - 2) * 37);
  }
  Arena scratch(GemmScratchBytes(rows, layer.n, layer.k));
  for (auto _ : state) {
    if (kind == kNT) GroupedMatMulNT(x, begin, weights, y.mutable_view(), Write::kOverwrite, scratch);
    if (kind == kNN) GroupedMatMulNN(dy, begin, weights, dx.mutable_view(), Write::kOverwrite, scratch);
    if (kind == kTN) GroupedMatMulTN(dy, x, begin, gradients, Write::kAdd, scratch);
  }
  Report(state, layer, kind, x_type, w_type, rows);
}

template <int64_t kCount>
void Cases(benchmark::internal::Benchmark* b) {
  const auto f32 = static_cast<int64_t>(DType::kF32), bf16 = static_cast<int64_t>(DType::kBF16);
  for (const auto& types : {std::pair{f32, f32}, std::pair{bf16, bf16}, std::pair{bf16, f32}, std::pair{f32, bf16}}) {
    for (int64_t layer = 0; layer < kCount; ++layer) {
      for (const int64_t kind : {kNT, kNN, kTN}) {
        if (kind != kTN || types.first == types.second) b->Args({layer, kind, types.first, types.second});
      }
    }
  }
}
BENCHMARK(BM_Linear)->Apply(Cases<std::size(kLayers)>)->UseRealTime()->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_Grouped)->Apply(Cases<std::size(kExpertLayers)>)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace fathom

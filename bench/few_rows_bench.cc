// Products of few rows, as fractions of the rate at which this machine reads memory. Weights are far larger than the cache.
#include <benchmark/benchmark.h>

#include <vector>

#include "bench/rates.h"
#include "fathom/base/threads.h"
#include "fathom/kernels/gemm/gemm.h"
#include "fathom/tensor/tensor.h"

namespace fathom {
namespace {

// Experts of this size lie one behind the other, as in a mapped file; each step reads all of them.
constexpr int64_t kColumns = 704, kSum = 1024, kExperts = 256;

void Fill(Tensor& t) {
  const View v = t.mutable_view();
  ParallelRanges(v.NumBytes(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) v.raw()[i] = static_cast<std::byte>(i * 37 % 113 % 0x3b);
  });
}

WeightView WeightOf(const Tensor& all, const Tensor& scales, int64_t expert) {
  const ConstView rows = all.view().Rows(expert * kColumns, (expert + 1) * kColumns);
  return {rows, all.dtype() == DType::kF8E4M3 ? scales.view() : ConstView()};
}

// arguments: rows of x, dtype of the weights, dtype of x
void BM_FewRows(benchmark::State& state) {
  const int64_t m = state.range(0);
  const auto type = static_cast<DType>(state.range(1)), x_type = static_cast<DType>(state.range(2));
  Tensor weights(type, {kExperts * kColumns, kSum}), x(x_type, {m, kSum}), y(DType::kF32, {m, kColumns});
  Tensor scales(DType::kF32, {(kColumns + kScaleBlock - 1) / kScaleBlock, kSum / kScaleBlock});
  Fill(weights);
  Arena scratch(GemmScratchBytes(m, kColumns, kSum));
  for (auto _ : state) {
    for (int64_t e = 0; e < kExperts; ++e) MatMulNT(x, WeightOf(weights, scales, e), y.mutable_view(), Write::kOverwrite, scratch);
  }
  const double bytes = static_cast<double>(weights.NumBytes()) * static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsRate);
  state.counters["of_read_rate"] = benchmark::Counter(bytes / ReadRate(), benchmark::Counter::kIsRate);
  state.SetLabel(std::string(DTypeName(type)) + " weights, " + std::string(DTypeName(x_type)) + " x");
}
void Cases(benchmark::internal::Benchmark* b) {
  for (const DType x : {DType::kF32, DType::kBF16}) {
    for (const DType w : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
      for (const int64_t m : {1, 2, 4, 8, 9, 12, 16}) {
        if (x == DType::kF32 || w != DType::kF32) b->Args({m, static_cast<int64_t>(w), static_cast<int64_t>(x)});
      }
    }
  }
}
BENCHMARK(BM_FewRows)->Apply(Cases)->UseRealTime()->Unit(benchmark::kMillisecond);

// One decoded token: 6 of the experts, a row each, all in one call.
void BM_GroupedOneRowEach(benchmark::State& state) {
  const auto type = static_cast<DType>(state.range(0));
  constexpr int64_t kChosen = 6;
  Tensor weights(type, {kExperts * kColumns, kSum}), x(DType::kF32, {kChosen, kSum}), y(DType::kF32, {kChosen, kColumns});
  Tensor scales(DType::kF32, {(kColumns + kScaleBlock - 1) / kScaleBlock, kSum / kScaleBlock});
  Fill(weights);
  Arena scratch(GemmScratchBytes(kChosen, kColumns, kSum));
  std::vector<WeightView> all;
  for (int64_t e = 0; e < kExperts; ++e) all.push_back(WeightOf(weights, scales, e));
  int64_t token = 0;
  std::vector<int64_t> begin(kExperts + 1);
  for (auto _ : state) {
    const int64_t first = token++ * kChosen % (kExperts - kChosen);
    for (int64_t e = 0; e <= kExperts; ++e) begin[static_cast<size_t>(e)] = std::clamp<int64_t>(e - first, 0, kChosen);
    GroupedMatMulNT(x, begin, all, y.mutable_view(), Write::kOverwrite, scratch);
  }
  const double bytes = static_cast<double>(kChosen * kColumns * kSum * DTypeSize(type)) * static_cast<double>(state.iterations());
  state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsRate);
  state.counters["of_read_rate"] = benchmark::Counter(bytes / ReadRate(), benchmark::Counter::kIsRate);
  state.SetLabel(std::string(DTypeName(type)) + " weights, F32 x");
}
BENCHMARK(BM_GroupedOneRowEach)->Arg(static_cast<int64_t>(DType::kBF16))->Arg(static_cast<int64_t>(DType::kF8E4M3))->UseRealTime();

}  // namespace
}  // namespace fathom

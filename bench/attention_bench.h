// What the benchmarks of attention share: V3.2's shapes, inputs, and the comparison with dense attention.
#pragma once

#include <benchmark/benchmark.h>

#include <chrono>
#include <map>
#include <vector>

#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/kernels/indexer/indexer.h"
#include "fathom/layers/chosen_attention.h"
#include "fathom/layers/linear.h"

namespace fathom {

inline constexpr int64_t kTopK = 2048, kLatent = 512, kRope = 64;
inline MlaShape V32Heads(int64_t heads) { return {heads, 128, kRope, 128, 0.0722f}; }
inline constexpr IndexerShape kIndexer{64, 128};

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

// How attention is computed: dense, or over chosen keys in one of the forms.
enum Kind : int64_t { kDense, kCheapest, kAbsorbed, kShared };
inline constexpr const char* kKindNames[] = {"dense", "cheapest form", "absorbed", "shared"};
inline ChosenForm FormOf(Kind kind) {
  return kind == kAbsorbed ? ChosenForm::kAbsorbed : kind == kShared ? ChosenForm::kShared : ChosenForm::kCheapest;
}

// Seconds of dense attention by benchmark and arguments but the kind; what came before it in the run stands beside the other kinds' as a
// ratio.
template <class F>
void Time(benchmark::State& state, int64_t tokens, Kind kind, const F& f, const std::vector<int64_t>& compared = {}) {
  using Clock = std::chrono::steady_clock;
  static std::map<std::vector<int64_t>, double> dense;
  f();
  const Clock::time_point began = Clock::now();
  for (auto _ : state) f();
  const double each = std::chrono::duration<double>(Clock::now() - began).count() / static_cast<double>(state.iterations());
  if (kind == kDense && !compared.empty()) dense[compared] = each;
  if (kind != kDense && dense.contains(compared)) state.counters["to_dense"] = each / dense[compared];
  state.counters["s/token"] =
      benchmark::Counter(static_cast<double>(tokens * state.iterations()), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.SetLabel(kKindNames[kind]);
}

inline Weight RandomWeight(Buffers& b, Shape shape) {
  Weight w{Tensor(DType::kBF16, shape), {}, {}};
  ArenaScope scope(b.scratch());
  const View values = b.Matrix(shape[0], shape[1], DType::kF32);
  Scale(0.02f, values);
  Cast(values, w.value.mutable_view());
  return w;
}

}  // namespace fathom

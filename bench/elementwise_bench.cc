// The kernels that are not matrix products, at the sizes of training and decoding: GB/s of what they read and write, and that as a
// fraction of the rate at which this machine reads memory, measured in the same run.
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/rates.h"
#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/kernels/attention/rope.h"
#include "fathom/kernels/elementwise/adamw.h"
#include "fathom/kernels/elementwise/embedding.h"
#include "fathom/kernels/elementwise/swiglu.h"
#include "fathom/kernels/elementwise/topk.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/head/cross_entropy.h"
#include "fathom/kernels/head/sampling.h"
#include "fathom/kernels/moe/balance.h"
#include "fathom/kernels/moe/moe_dispatch.h"
#include "fathom/kernels/moe/router.h"
#include "fathom/kernels/norm/rms_norm.h"
#include "fathom/kernels/quant/fp8_quantize.h"
#include "fathom/tensor/tensor.h"

namespace fathom {
namespace {

Tensor RandomMatrix(int64_t rows, int64_t columns, DType dtype = DType::kF32) {
  Tensor values(DType::kF32, Shape{rows, columns}), out(dtype, Shape{rows, columns});
  const CounterRng rng(1, static_cast<uint64_t>(columns));
  float* p = values.mutable_data<float>();
  for (int64_t i = 0; i < rows * columns; ++i) p[i] = static_cast<float>(rng.Uniform(static_cast<uint64_t>(i)) * 4 - 2);
  Cast(values, out.mutable_view());
  return out;
}

std::span<float> Floats(Tensor& t) { return {t.mutable_data<float>(), static_cast<size_t>(t.NumElements())}; }

std::vector<int32_t> RandomIds(int64_t n, int64_t below) {
  const CounterRng rng(2, static_cast<uint64_t>(below));
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(rng.Below(static_cast<uint64_t>(i), static_cast<uint64_t>(below))));
  return ids;
}

struct Case {
  std::string name;
  int64_t bytes;  // read and written
  std::function<void()> run;
};

void Norms(std::vector<Case>& cases) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t t = 8192, d = 2048, size = DTypeSize(dtype);
    const std::string tail = fmt::format("/{}", DTypeName(dtype));
    auto x = RandomMatrix(t, d, dtype), w = RandomMatrix(1, d), y = RandomMatrix(t, d, dtype), dy = RandomMatrix(t, d, dtype);
    auto rstd = RandomMatrix(t, 1), dw = RandomMatrix(1, d);
    auto scratch = std::make_shared<Arena>(int64_t{1} << 24);
    cases.push_back({"rms_norm_forward" + tail, 2 * t * d * size,
                     [=]() mutable { RmsNormForward(x, w, 1e-6f, y.mutable_view(), rstd.mutable_view()); }});
    cases.push_back({"rms_norm_backward" + tail, 3 * t * d * size,
                     [=]() mutable { RmsNormBackward(dy, x, w, rstd, {.dx = y.mutable_view(), .dw = dw.mutable_view()}, *scratch); }});
  }
}

void Gates(std::vector<Case>& cases) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t t = 8192, f = 1408, size = DTypeSize(dtype);
    const std::string tail = fmt::format("/{}", DTypeName(dtype));
    auto gate = RandomMatrix(t, f, dtype), up = RandomMatrix(t, f, dtype), y = RandomMatrix(t, f, dtype), dup = RandomMatrix(t, f, dtype);
    auto weight = RandomMatrix(t, 1), d_weight = RandomMatrix(t, 1);
    cases.push_back(
        {"swiglu_forward" + tail, 3 * t * f * size, [=]() mutable { SwigluForward(gate, up, Floats(weight), y.mutable_view()); }});
    cases.push_back({"swiglu_backward" + tail, 5 * t * f * size, [=]() mutable {
                       SwigluBackward(y, gate, up, Floats(weight), y.mutable_view(), dup.mutable_view(), Floats(d_weight));
                     }});
  }
}

void Rotation(std::vector<Case>& cases) {
  const int64_t t = 8192, heads = 16, width = 192, d = 64;
  auto x = RandomMatrix(t, heads * width), cos = RandomMatrix(512, d / 2), sin = RandomMatrix(512, d / 2);
  auto positions = RandomIds(t, 512);
  for (const auto& [name, pairs] : {std::pair{"rope/interleaved", RopePairs::kInterleaved}, std::pair{"rope/halves", RopePairs::kHalves}}) {
    cases.push_back({name, 2 * t * heads * d * 4, [=, pairs = pairs]() mutable {
                       RopeRotate(x.mutable_view(), {heads, width, width - d}, {cos, sin, positions}, pairs, RopeDirection::kForward);
                     }});
  }
}

void Experts(std::vector<Case>& cases) {
  const int64_t t = 4096, e = 256, k = 8, d = 1024;
  const RouterShape shape = {
      .experts = e, .chosen = k, .groups = 8, .kept_groups = 4, .sigmoid = true, .group_top2 = true, .normalize = true, .scaling = 2.5f};
  auto logits = RandomMatrix(t, e), scores = RandomMatrix(t, e), bias = RandomMatrix(1, e), weights = RandomMatrix(t, k),
       dlogits = RandomMatrix(t, e);
  auto ids = RandomIds(t * k, e);
  auto scratch = std::make_shared<Arena>(int64_t{1} << 24);
  cases.push_back({"router_forward", 2 * t * e * 4,
                   [=]() mutable { RouterForward(shape, logits, Floats(bias), scores.mutable_view(), ids, Floats(weights)); }});
  cases.push_back({"router_backward", 2 * t * e * 4,
                   [=]() mutable { RouterBackward(shape, scores, ids, Floats(weights), ConstView(), dlogits.mutable_view()); }});
  const std::vector<int64_t> sequences = {0, t / 2, t};
  cases.push_back({"balance_loss", 3 * t * e * 4, [=]() mutable {
                     BalanceLoss(BalanceForm::kNormalizedScores, {scores, k, ids, {}, sequences}, 1.0f, dlogits.mutable_view(), *scratch);
                   }});
  std::vector<int64_t> begin(static_cast<size_t>(e + 1));
  std::vector<int32_t> row_token(ids.size()), row_slot(ids.size()), slot_row(ids.size());
  BuildDispatch(ids, k, e, begin, row_token, row_slot, slot_row);
  auto x = RandomMatrix(t, d), rows = RandomMatrix(t * k, d);
  cases.push_back({"build_dispatch", 4 * t * k * 4, [=]() mutable { BuildDispatch(ids, k, e, begin, row_token, row_slot, slot_row); }});
  cases.push_back({"gather_rows", 2 * t * k * d * 4, [=]() mutable { GatherRows(x, row_token, rows.mutable_view()); }});
  cases.push_back({"combine_rows", (k + 1) * t * d * 4, [=]() mutable { CombineRows(rows, slot_row, k, x.mutable_view(), false); }});
}

void Losses(std::vector<Case>& cases) {
  for (const auto& [t, v] : {std::pair<int64_t, int64_t>{1024, 8192}, std::pair<int64_t, int64_t>{256, 129280}}) {
    auto logits = RandomMatrix(t, v), d = RandomMatrix(t, v);
    auto targets = RandomIds(t, v);
    const std::vector<float> weight(static_cast<size_t>(t), 1.0f);
    cases.push_back({fmt::format("cross_entropy/{}x{}", t, v), 2 * t * v * 4, [=]() mutable {
                       CrossEntropy(logits, {targets, weight, 1e-4f, 1.0f}, d.mutable_view(), {});
                     }});
  }
  const int64_t t = 8192, v = 32000, d = 512;
  auto table = RandomMatrix(v, d), out = RandomMatrix(t, d);
  auto ids = RandomIds(t, v);
  cases.push_back({"embedding_forward", 2 * t * d * 4, [=]() mutable { EmbeddingForward(table, ids, out.mutable_view()); }});
  cases.push_back({"embedding_backward", 3 * t * d * 4, [=]() mutable { EmbeddingBackward(out, ids, table.mutable_view()); }});
}

void Parameters(std::vector<Case>& cases) {
  const int64_t n = int64_t{1} << 25;
  auto w = RandomMatrix(1, n), m = RandomMatrix(1, n), v = RandomMatrix(1, n), g = RandomMatrix(1, n);
  Scale(0.0f, v.mutable_view());
  const AdamWStep step = {
      .learning_rate = 1e-3f, .b1 = 0.9f, .b2 = 0.95f, .eps = 1e-8f, .eps_root = 0, .weight_decay = 0.1f, .t = 10, .grad_scale = 1};
  cases.push_back({"adamw", 28 * n, [=]() mutable { AdamWUpdate(step, {w.mutable_view(), m.mutable_view(), v.mutable_view(), g}); }});
  cases.push_back({"sum_squares", 4 * n, [=] { benchmark::DoNotOptimize(SumSquares(g)); }});
  cases.push_back({"has_non_finite", 4 * n, [=] { benchmark::DoNotOptimize(HasNonFinite(g)); }});
  auto b = RandomMatrix(1, n, DType::kBF16);
  cases.push_back({"cast/f32_to_bf16", 6 * n, [=]() mutable { Cast(g, b.mutable_view()); }});
  auto x = RandomMatrix(4096, 2048), y = RandomMatrix(4096, 2048);
  for (const auto& [name, tile] : {std::pair{"round_to_fp8/1x128", Fp8Tile::k1x128}, std::pair{"round_to_fp8/128x1", Fp8Tile::k128x1}}) {
    cases.push_back({name, 8 * x.NumElements(), [=, tile = tile]() mutable { RoundToFp8(x, tile, ScaleFormat::kF32, y.mutable_view()); }});
  }
}

void Choices(std::vector<Case>& cases) {
  const int64_t n = 65536, k = 2048, v = 129280;
  auto scores = RandomMatrix(1, n), logits = RandomMatrix(1, v), p = RandomMatrix(1, v);
  std::vector<int32_t> ids(static_cast<size_t>(k)), work(static_cast<size_t>(n));
  auto scratch = std::make_shared<Arena>(int64_t{1} << 24);
  cases.push_back({"topk_sorted/2048_of_65536", 4 * n, [=]() mutable { TopKSorted(Floats(scores), k, ids, work); }});
  cases.push_back({"argmax/129280", 4 * v, [=]() mutable { benchmark::DoNotOptimize(ArgMax(Floats(logits))); }});
  for (const auto& [name, rule] : {std::pair{"sample/weighted", SamplingRule{.strategy = SamplingStrategy::kWeighted}},
                                   std::pair{"sample/nucleus", SamplingRule{.strategy = SamplingStrategy::kNucleus, .top_p = 0.9}}}) {
    cases.push_back({name, 8 * v, [=, rule = rule]() mutable {
                       SamplingDistribution(rule, Floats(logits), Floats(p), *scratch);
                       benchmark::DoNotOptimize(DrawIndex(Floats(p), 0.5));
                     }});
  }
}

void Register(const Case& c, double read_rate) {
  benchmark::RegisterBenchmark(c.name.c_str(),
                               [c, read_rate](benchmark::State& state) {
                                 for (auto _ : state) c.run();
                                 const double bytes = static_cast<double>(c.bytes) * static_cast<double>(state.iterations());
                                 state.counters["GB/s"] = benchmark::Counter(bytes * 1e-9, benchmark::Counter::kIsRate);
                                 state.counters["of_read"] = benchmark::Counter(bytes / read_rate, benchmark::Counter::kIsRate);
                               })
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  fathom::SetThreads(0);
  const double read_rate = fathom::ReadRate();
  benchmark::AddCustomContext("read rate, GB/s", std::to_string(read_rate * 1e-9));
  std::vector<fathom::Case> cases;
  fathom::Norms(cases);
  fathom::Gates(cases);
  fathom::Rotation(cases);
  fathom::Experts(cases);
  fathom::Losses(cases);
  fathom::Parameters(cases);
  fathom::Choices(cases);
  for (const fathom::Case& c : cases) fathom::Register(c, read_rate);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

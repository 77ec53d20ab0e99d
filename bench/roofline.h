// What this machine can do, measured where a benchmark needs it: the yardstick of its figures.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "fathom/base/clock.h"
#include "fathom/base/threads.h"

namespace fathom {

// The shortest of `times` runs, in seconds: what stays when others use the machine too.
template <class F>
double ShortestRun(int times, const F& f) {
  f();
  double best = 1e30;
  for (int i = 0; i < times; ++i) {
    const Stopwatch watch;
    f();
    best = std::min(best, watch.Seconds());
  }
  return best;
}

// Bytes per second that all threads read together from memory far larger than any cache.
inline double MeasureReadRate() {
  const int64_t words = int64_t{1} << 26;
  const std::unique_ptr<uint64_t[]> data(new uint64_t[static_cast<size_t>(words)]);
  ParallelRanges(words, 1, [&](int64_t begin, int64_t end) { std::fill(data.get() + begin, data.get() + end, uint64_t{1}); });
  std::vector<uint64_t> sums(static_cast<size_t>(NumThreads()) * 8);
  const double seconds = ShortestRun(7, [&] {
    ParallelRanges(words, 1, [&](int64_t begin, int64_t end) {
      uint64_t sum[8] = {};
      for (int64_t i = begin; i + 8 <= end; i += 8) {
        for (int64_t j = 0; j < 8; ++j) sum[j] += data[static_cast<size_t>(i + j)];
      }
      for (const uint64_t s : sum) sums[static_cast<size_t>(omp_get_thread_num()) * 8] += s;
    });
  });
  return static_cast<double>(words) * 8 / seconds;
}

// Multiply-adds count as two. oneDNN's own speed on a large square product, from operands as it likes them best.
inline double MeasureGemmRate(dnnl::memory::data_type type) {
  using dnnl::memory;
  const int64_t n = 1024;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc a({n, n}, type, memory::format_tag::ab), b({n, n}, type, memory::format_tag::any);
  const memory::desc c({n, n}, memory::data_type::f32, memory::format_tag::ab);
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc plan(engine, a, b, c);
#else
  const dnnl::matmul::primitive_desc plan(dnnl::matmul::desc(a, b, c), engine);
#endif
  memory left(a, engine), right(plan.weights_desc(), engine), out(c, engine);
  for (memory* m : {&left, &right}) std::memset(m->get_data_handle(), 0, m->get_desc().get_size());
  const dnnl::matmul product(plan);
  const double seconds = ShortestRun(20, [&] { product.execute(stream, {{DNNL_ARG_SRC, left}, {DNNL_ARG_WEIGHTS, right}, {DNNL_ARG_DST, out}}); });
  return 2.0 * n * n * n / seconds;
}

}  // namespace fathom

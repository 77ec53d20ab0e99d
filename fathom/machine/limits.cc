#include "fathom/machine/limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <numeric>
#include <vector>

#include "fathom/base/clock.h"
#include "fathom/base/file.h"
#include "fathom/base/threads.h"
#include "fathom/kernels/elementwise/random_fill.h"
#include "fathom/kernels/gemm/gemm.h"
#include "fathom/kernels/gemm/gemm_peak.h"
#include "fathom/machine/vector_units.h"
#include "fathom/tensor/tensor.h"

namespace fathom {
namespace {

constexpr int kRuns = 9;
constexpr int64_t kReadBytes = int64_t{512} << 20, kDiskBytes = int64_t{512} << 20, kDiskBlock = int64_t{16} << 20;

// amount, in units of 1e9, over the time of each run; the first run warms up and doesn't count.
Rate Measure(int runs, double amount, const std::function<void()>& f) {
  f();
  std::vector<double> rates;
  for (int i = 0; i < runs; ++i) {
    const Stopwatch clock;
    f();
    rates.push_back(amount / clock.Seconds());
  }
  return RateOf(std::move(rates));
}

struct Sizes {
  int64_t m, n, k;
  double Gflop() const { return 2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
};

Rate MeasureOurs(DType dtype, Sizes s, int runs) {
  Tensor x(dtype, {s.m, s.k}), w(dtype, {s.n, s.k}), y(DType::kF32, {s.m, s.n});
  FillNormal(0, 0, 1, x.mutable_view());
  FillNormal(0, 1, 1, w.mutable_view());
  Arena scratch(GemmScratchBytes(s.m, s.n, s.k));
  return Measure(runs, s.Gflop(), [&] { MatMulNT(x, {w.view(), {}}, y.mutable_view(), Write::kOverwrite, scratch); });
}

// Zeros where oneDNN has no such product.
Rate MeasureOneDnn(DType dtype, Sizes s, bool packed) {
  if (!HasOneDnnProduct(dtype)) return {};
  OneDnnProduct product(dtype, s.m, s.n, s.k, packed);
  return Measure(kRuns, s.Gflop(), [&] { product.Run(); });
}

}  // namespace

Rate RateOf(std::vector<double> values) {
  std::ranges::sort(values);
  return {values[values.size() / 2], values.front(), values.back()};
}

Rate MeasureVectorUnits(DType dtype) {
  constexpr int64_t kRounds = 4'000'000;
  const int threads = NumThreads();
  const double each = static_cast<double>(RunMultiplyAdds(dtype, 1) * kRounds);
  return Measure(kRuns, each * threads * 1e-9,
                 [&] { ParallelRanges(threads, 1, [&](int64_t, int64_t) { RunMultiplyAdds(dtype, kRounds); }); });
}

Rate MeasureProducts(DType dtype) {
  Rate best;
  for (const Sizes s : {Sizes{1024, 1024, 1024}, Sizes{512, 4096, 1024}}) {
    for (const Rate& rate : {MeasureOurs(dtype, s, kRuns), MeasureOneDnn(dtype, s, false), MeasureOneDnn(dtype, s, true)}) {
      if (rate.median > best.median) best = rate;
    }
  }
  return best;
}

double QuickProductRate(DType dtype) { return MeasureOurs(dtype, {768, 768, 768}, 5).high; }

Rate MeasureMemoryRead() {
  const int64_t words = kReadBytes / 8;
  const std::unique_ptr<uint64_t[]> data(new uint64_t[static_cast<size_t>(words)]);
  ParallelRanges(words, 1, [&](int64_t begin, int64_t end) { std::fill(data.get() + begin, data.get() + end, uint64_t{1}); });
  std::vector<uint64_t> sums(static_cast<size_t>(NumThreads()) * 8);  // a cache line each
  return Measure(kRuns, static_cast<double>(kReadBytes) * 1e-9, [&] {
    ParallelRanges(words, 1, [&](int64_t begin, int64_t end) {
      uint64_t sum[8] = {};  // independent, so that no addition waits for the one before
      for (int64_t i = begin; i + 8 <= end; i += 8) {
        for (int64_t j = 0; j < 8; ++j) sum[j] += data[static_cast<size_t>(i + j)];
      }
      sums[static_cast<size_t>(omp_get_thread_num()) * 8] += std::accumulate(sum, sum + 8, uint64_t{0});
    });
  });
}

Rate MeasureDiskWrite(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / (".fathom-bench-" + std::to_string(::getpid()));
  Tensor block(DType::kF32, {kDiskBlock / 4});
  FillNormal(0, 0, 1, block.mutable_view());  // nothing that a file system could compress or leave out
  const std::span<const std::byte> bytes{block.view().raw(), static_cast<size_t>(kDiskBlock)};
  return Measure(3, static_cast<double>(kDiskBytes) * 1e-9, [&] {
    OutputFile file(path);
    std::filesystem::remove(path);
    for (int64_t at = 0; at < kDiskBytes; at += kDiskBlock) file.Write(bytes);
    file.Close();
  });
}

std::string CpuName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != line.npos) return line.substr(colon + 2);
  }
  return "unknown";
}

int64_t MemoryBytes() { return static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE); }

int64_t OwnMemoryBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0, shared = 0;  // pages
  file >> size >> resident >> shared;
  return (resident - shared) * ::sysconf(_SC_PAGESIZE);
}

int64_t PeakResidentBytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace fathom

// The job loop that kernels share: the jobs of several items (segments, queries, products) are numbered through, workers take them one by
// one, each with scratch of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "fathom/base/threads.h"
#include "fathom/tensor/arena.h"

namespace fathom {

// What the busiest of the threads has of so many equal jobs over the mean; up to kEvenEnough, jobs are worth more whole.
inline constexpr double kEvenEnough = 1.125;
inline double Unevenness(int64_t jobs, int64_t threads) {
  return jobs <= 0 ? 1 : static_cast<double>((jobs + threads - 1) / threads * threads) / static_cast<double>(jobs);
}
// Into how many parts each of so many jobs is best cut, up to `most`.
inline int64_t EvenParts(int64_t jobs, int64_t most, int64_t threads) {
  int64_t best = 1;
  for (int64_t parts = 1; parts <= most && Unevenness(jobs * best, threads) > kEvenEnough; ++parts) {
    if (Unevenness(jobs * parts, threads) < Unevenness(jobs * best, threads)) best = parts;
  }
  return best;
}

// Item i owns jobs [First(i), First(i + 1)); items may own none. The table lies in the arena.
class JobTable {
 public:
  struct Job {
    int64_t item, index;  // the index-th job of the item
  };
  // jobs_of(i): how many jobs item i owns; called once per item, in order.
  template <class F>
  JobTable(Arena& arena, int64_t items, const F& jobs_of) : first_(arena.AllocSpan<int64_t>(items + 1)) {
    first_[0] = 0;
    for (int64_t i = 0; i < items; ++i) first_[static_cast<size_t>(i) + 1] = First(i) + jobs_of(i);
  }
  int64_t size() const { return first_.back(); }
  int64_t First(int64_t item) const { return first_[static_cast<size_t>(item)]; }
  // job < size(); the job after the last is that of an item after the last.
  Job At(int64_t job) const {
    const int64_t item = std::upper_bound(first_.begin(), first_.end(), job) - first_.begin() - 1;
    return {item, job - First(item)};
  }

 private:
  std::span<int64_t> first_;
};

// `each` elements for every worker that a loop begun here may have. The memory lies in the arena.
template <class T>
class WorkerScratch {
 public:
  WorkerScratch(Arena& arena, int64_t each) : each_(each), base_(arena.AllocArray<T>(NumWorkers() * each)) {}
  // f(job, scratch of the worker) for jobs [0, n).
  template <class F>
  void Run(int64_t n, const F& f) const {
    ParallelWorkerJobs(n, [&](int64_t job, int worker) { f(job, base_ + worker * each_); });
  }
  // cost(job): how long it is beside the others, for a plan.
  template <class C, class F>
  void Run(int64_t n, const C& cost, const F& f) const {
    ParallelWorkerJobs(n, cost, [&](int64_t job, int worker) { f(job, base_ + worker * each_); });
  }

 private:
  int64_t each_;
  T* base_;
};

}  // namespace fathom

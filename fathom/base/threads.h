// Threads are OpenMP's, the same pool oneDNN uses. Loops run nothing under a PlanScope. Each wakes the whole team, though it may have work
// for a part of it only: libgomp ends the threads that a smaller team leaves out, and makes new ones for the next.
#pragma once

#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "fathom/base/function_ref.h"
#include "fathom/base/plan_scope.h"
#include "fathom/base/pulse.h"

namespace fathom {

// Cores that this process may run on; with OMP_PLACES those of its places.
int AllowedCores();
// From here on this thread, and what it starts, may run on all of them, whatever place OMP_PROC_BIND gave it.
void UnbindThread();
// n <= 0: every core this process may run on. Affects later parallel regions of the calling thread.
void SetThreads(int n);
int NumThreads();

// What a loop of so many equal jobs would be, told to the innermost open slice of this thread's trace, if there is one (base/trace.h).
void NotePlannedLoop(int64_t jobs, int64_t grain = 1);
// The same of jobs that take cost(i) each and go, in order, to whoever is free. Of very many jobs it is a bound.
void NotePlannedJobs(int64_t jobs, FunctionRef<double(int64_t)> cost);

struct IndexRange {
  int64_t begin, end;
};
// Of n indices those of one owner. Memory is first touched, and later swept through as a whole, in the same ranges by the same threads.
inline IndexRange OwnRange(int64_t n, int64_t owner, int64_t owners) { return {n * owner / owners, n * (owner + 1) / owners}; }
inline int64_t OwnerOf(int64_t index, int64_t n, int64_t owners) { return ((index + 1) * owners - 1) / n; }

// A thread in a loop gets on, if somebody watches the process (`pulse`).
inline void BeatInLoop(Pulse* pulse) {
  if (pulse != nullptr) pulse->BeatOf(omp_get_thread_num());
}

// f over [begin, end), for a process that is watched in pieces that beat: at most 64, each worth 16 grains.
template <class F>
void RunRange(int64_t begin, int64_t end, int64_t grain, const F& f) {
  Pulse* pulse = Pulse::OfProcess();
  const int64_t piece = pulse == nullptr ? end - begin : std::max(16 * grain, (end - begin + 63) / 64);
  for (int64_t at = begin; at < end; at += piece) {
    f(at, std::min(at + piece, end));
    BeatInLoop(pulse);
  }
}

// f(begin, end) on contiguous, disjoint ranges that cover [0, n). Which thread gets which range depends on the number of
// threads, so f must compute each index independently of the others (that is what keeps bits equal for any thread count).
// Ranges hold at least `grain` indices (but the last); within a parallel region f runs on the caller.
template <class F>
void ParallelRanges(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  if (PlanScope::Active()) return NotePlannedLoop(n, grain);
  const int64_t most = (n + grain - 1) / grain;
  if (most == 1 || omp_in_parallel() || NumThreads() == 1) {
    RunRange(0, n, grain, f);
    return;
  }
#pragma omp parallel num_threads(NumThreads())
  {
    const int64_t t = omp_get_thread_num(), team = omp_get_num_threads(), count = most < team ? most : team;
    const auto [begin, end] = OwnRange(n, t, count);
    if (t < count && begin < end) RunRange(begin, end, grain, f);
  }
}

// Jobs [0, n) for workers that each take those of their own range (OwnRange), and then what others have left.
class JobQueue {
 public:
  JobQueue(int64_t n, int64_t workers);
  // The next one of a worker; below 0: none is left.
  int64_t Next(int64_t worker);

 private:
  struct alignas(64) Range {
    std::atomic<int64_t> next;
    int64_t end;
  };
  // On the stack: a step of training allocates nothing. More workers share them.
  static constexpr int64_t kMostRanges = 256;
  int64_t count_;
  std::array<Range, kMostRanges> ranges_;
};

// f(i) for i in [0, n), handed out one by one: for jobs of unequal length. A job is its owner's unless that one is late.
template <class F>
void ParallelJobs(int64_t n, const F& f) {
  if (PlanScope::Active()) return NotePlannedLoop(n);
  Pulse* pulse = Pulse::OfProcess();
  const auto run = [&](int64_t i) {
    f(i);
    BeatInLoop(pulse);
  };
  if (n <= 1 || omp_in_parallel() || NumThreads() == 1) {
    for (int64_t i = 0; i < n; ++i) run(i);
    return;
  }
  JobQueue jobs(n, NumThreads());
#pragma omp parallel num_threads(NumThreads())
  for (int64_t i = 0; (i = jobs.Next(omp_get_thread_num())) >= 0;) run(i);
}

// The same with the number of the worker that runs it, in [0, NumWorkers()): each worker has scratch of its own.
inline int NumWorkers() { return omp_in_parallel() ? 1 : NumThreads(); }
template <class F>
void ParallelWorkerJobs(int64_t n, const F& f) {
  if (PlanScope::Active()) return NotePlannedLoop(n);
  Pulse* pulse = Pulse::OfProcess();
  const auto run = [&](int64_t i, int worker) {
    f(i, worker);
    BeatInLoop(pulse);
  };
  if (n <= 1 || NumWorkers() == 1) {
    for (int64_t i = 0; i < n; ++i) run(i, 0);
    return;
  }
  if (n <= NumThreads()) {  // job i is always thread i's, whose caches and memory have what it read before
#pragma omp parallel num_threads(NumThreads())
    for (int64_t i = omp_get_thread_num(); i < n; i += omp_get_num_threads()) run(i, omp_get_thread_num());
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(NumThreads())
  for (int64_t i = 0; i < n; ++i) run(i, omp_get_thread_num());
}

// The same; a plan knows by cost(i) how long the jobs are.
template <class C, class F>
void ParallelWorkerJobs(int64_t n, const C& cost, const F& f) {
  if (PlanScope::Active()) return NotePlannedJobs(n, cost);
  ParallelWorkerJobs(n, f);
}

}  // namespace fathom

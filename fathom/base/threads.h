// Threads are OpenMP's, the same pool oneDNN uses. Loops run nothing under a PlanScope. Each wakes the whole team, though it may have work
// for a part of it only: libgomp ends the threads that a smaller team leaves out, and makes new ones for the next.
#pragma once

#include <omp.h>

#include <cstdint>

#include "fathom/base/plan_scope.h"

namespace fathom {

// Cores that this process may run on.
int AllowedCores();
// n <= 0: every core this process may run on. Affects later parallel regions of the calling thread.
void SetThreads(int n);
int NumThreads();

// What a loop of so many equal jobs would be, told to the innermost open slice of this thread's trace, if there is one (base/trace.h).
void NotePlannedLoop(int64_t jobs, int64_t grain = 1);

// f(begin, end) on contiguous, disjoint ranges that cover [0, n). Which thread gets which range depends on the number of
// threads, so f must compute each index independently of the others (that is what keeps bits equal for any thread count).
// Ranges hold at least `grain` indices (but the last); within a parallel region f runs once, on the caller.
template <class F>
void ParallelRanges(int64_t n, int64_t grain, const F& f) {
  if (n <= 0) return;
  if (PlanScope::Active()) return NotePlannedLoop(n, grain);
  const int64_t most = (n + grain - 1) / grain;
  if (most == 1 || omp_in_parallel() || NumThreads() == 1) {
    f(int64_t{0}, n);
    return;
  }
#pragma omp parallel num_threads(NumThreads())
  {
    const int64_t t = omp_get_thread_num(), team = omp_get_num_threads(), count = most < team ? most : team;
    const int64_t begin = n * t / count, end = n * (t + 1) / count;
    if (t < count && begin < end) f(begin, end);
  }
}

// f(i) for i in [0, n), handed out one by one: for jobs of unequal length.
template <class F>
void ParallelJobs(int64_t n, const F& f) {
  if (PlanScope::Active()) return NotePlannedLoop(n);
  if (n <= 1 || omp_in_parallel() || NumThreads() == 1) {
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(NumThreads())
  for (int64_t i = 0; i < n; ++i) f(i);
}

// The same with the number of the worker that runs it, in [0, NumWorkers()): each worker has scratch of its own.
inline int NumWorkers() { return omp_in_parallel() ? 1 : NumThreads(); }
template <class F>
void ParallelWorkerJobs(int64_t n, const F& f) {
  if (PlanScope::Active()) return NotePlannedLoop(n);
  if (n <= 1 || NumWorkers() == 1) {
    for (int64_t i = 0; i < n; ++i) f(i, 0);
    return;
  }
  if (n <= NumThreads()) {  // job i is always thread i's, whose caches and memory have what it read before
#pragma omp parallel num_threads(NumThreads())
    for (int64_t i = omp_get_thread_num(); i < n; i += omp_get_num_threads()) f(i, omp_get_thread_num());
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(NumThreads())
  for (int64_t i = 0; i < n; ++i) f(i, omp_get_thread_num());
}

}  // namespace fathom

// Threads are OpenMP's, the same pool oneDNN uses. Loops run nothing under a PlanScope.
#pragma once

#include <omp.h>

#include <cstdint>

#include "fathom/base/plan_scope.h"

namespace fathom {

// n <= 0: every core this process may run on. Affects later parallel regions of the calling thread.
void SetThreads(int n);
int NumThreads();

// f(begin, end) on contiguous, disjoint ranges that cover [0, n). Which thread gets which range depends on the number of
// threads, so f must compute each index independently of the others (that is what keeps bits equal for any thread count).
// Ranges hold at least `grain` indices (but the last); within a parallel region f runs once, on the caller.
template <class F>
void ParallelRanges(int64_t n, int64_t grain, const F& f) {
  if (n <= 0 || PlanScope::Active()) return;
  const int64_t most = (n + grain - 1) / grain;
  const int threads = omp_in_parallel() ? 1 : static_cast<int>(most < NumThreads() ? most : NumThreads());
  if (threads <= 1) {
    f(int64_t{0}, n);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int64_t t = omp_get_thread_num(), count = omp_get_num_threads();
    const int64_t begin = n * t / count, end = n * (t + 1) / count;
    if (begin < end) f(begin, end);
  }
}

// f(i) for i in [0, n), handed out one by one: for jobs of unequal length.
template <class F>
void ParallelJobs(int64_t n, const F& f) {
  if (PlanScope::Active()) return;
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
  if (PlanScope::Active()) return;
  if (n <= 1 || NumWorkers() == 1) {
    for (int64_t i = 0; i < n; ++i) f(i, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(NumThreads())
  for (int64_t i = 0; i < n; ++i) f(i, omp_get_thread_num());
}

}  // namespace fathom

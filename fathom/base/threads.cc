#include "fathom/base/threads.h"

#include <sched.h>

#include <algorithm>

#include "fathom/base/pulse.h"
#include "fathom/base/trace.h"

namespace fathom {

int AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return omp_get_num_procs();
  const int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

void SetThreads(int n) { omp_set_num_threads(n > 0 ? n : AllowedCores()); }

// The thread that has most of n indices, in ranges or one by one, has n / used of them, rounded up.
void NotePlannedLoop(int64_t jobs, int64_t grain) {
  Trace* trace = TraceScope::Active();
  if (trace == nullptr || jobs <= 0) return;
  const int64_t threads = NumThreads(), pieces = (jobs + grain - 1) / grain, used = std::min(pieces, threads);
  trace->NoteLoop(pieces, static_cast<double>((jobs + used - 1) / used * threads) / static_cast<double>(jobs));
}

// Whoever asks is about to begin a loop: it gets on.
int NumThreads() {
  Pulse::Beat();
  return PlanScope::Active() ? PlanScope::Threads() : omp_get_max_threads();
}

}  // namespace fathom

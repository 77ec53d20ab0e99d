#include "fathom/base/threads.h"

#include <sched.h>

#include "fathom/base/pulse.h"

namespace fathom {
namespace {

int AllowedCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return omp_get_num_procs();
  const int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

}  // namespace

void SetThreads(int n) { omp_set_num_threads(n > 0 ? n : AllowedCores()); }

// Whoever asks is about to begin a loop: it gets on.
int NumThreads() {
  Pulse::Beat();
  return PlanScope::Active() ? PlanScope::Threads() : omp_get_max_threads();
}

}  // namespace fathom

#include "fathom/base/threads.h"

#include <sched.h>

#include <algorithm>
#include <functional>
#include <queue>
#include <vector>

#include "fathom/base/pulse.h"
#include "fathom/base/trace.h"

namespace fathom {
namespace {

// Of more jobs than this for each thread the longest is too little to be worth following every one.
constexpr int64_t kFollowedJobs = 32;

// What the thread that works longest does.
double Longest(int64_t jobs, int64_t threads, FunctionRef<double(int64_t)> cost) {
  std::priority_queue<double, std::vector<double>, std::greater<>> busy_until(std::greater<>(),
                                                                              std::vector<double>(static_cast<size_t>(threads)));
  double longest = 0;
  for (int64_t i = 0; i < jobs; ++i) {
    const double end = busy_until.top() + cost(i);
    busy_until.pop();
    busy_until.push(end);
    longest = std::max(longest, end);
  }
  return longest;
}

// The cores of all places that OpenMP has, which may overlap; none where threads are not bound.
cpu_set_t CoresOfPlaces() {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int place = 0; place < omp_get_num_places(); ++place) {
    std::vector<int> ids(static_cast<size_t>(omp_get_place_num_procs(place)));
    omp_get_place_proc_ids(place, ids.data());
    for (const int id : ids) CPU_SET(id, &set);
  }
  return set;
}

}  // namespace

// Where threads are bound (OMP_PROC_BIND), this one may run in its place alone, and OpenMP knows the others'.
int AllowedCores() {
  const cpu_set_t places = CoresOfPlaces();
  const int cores = CPU_COUNT(&places);
  return cores > 0 ? cores : std::max(1, omp_get_num_procs());
}

void UnbindThread() {
  const cpu_set_t places = CoresOfPlaces();
  if (CPU_COUNT(&places) > 0) sched_setaffinity(0, sizeof(places), &places);
}

void SetThreads(int n) { omp_set_num_threads(n > 0 ? n : AllowedCores()); }

// The thread that has most of n indices, in ranges or one by one, has n / used of them, rounded up.
void NotePlannedLoop(int64_t jobs, int64_t grain) {
  Trace* trace = TraceScope::Active();
  if (trace == nullptr || jobs <= 0) return;
  const int64_t threads = NumThreads(), pieces = (jobs + grain - 1) / grain, used = std::min(pieces, threads);
  trace->NoteLoop(pieces, static_cast<double>((jobs + used - 1) / used * threads) / static_cast<double>(jobs));
}

void NotePlannedJobs(int64_t jobs, FunctionRef<double(int64_t)> cost) {
  Trace* trace = TraceScope::Active();
  if (trace == nullptr || jobs <= 0) return;
  double sum = 0, most = 0;
  for (int64_t i = 0; i < jobs; ++i) {
    sum += cost(i);
    most = std::max(most, cost(i));
  }
  if (sum <= 0) return;
  const int64_t threads = NumThreads();
  const double mean = sum / static_cast<double>(threads);
  trace->NoteLoop(jobs, (jobs > kFollowedJobs * threads ? mean + most : Longest(jobs, threads, cost)) / mean);
}

JobQueue::JobQueue(int64_t n, int64_t workers) : count_(std::min(workers, kMostRanges)) {
  for (int64_t i = 0; i < count_; ++i) {
    const auto [begin, end] = OwnRange(n, i, count_);
    ranges_[static_cast<size_t>(i)].next = begin;
    ranges_[static_cast<size_t>(i)].end = end;
  }
}

int64_t JobQueue::Next(int64_t worker) {
  for (int64_t i = 0; i < count_; ++i) {
    Range& range = ranges_[static_cast<size_t>((worker + i) % count_)];
    if (range.next.load(std::memory_order_relaxed) >= range.end) continue;
    const int64_t job = range.next.fetch_add(1, std::memory_order_relaxed);
    if (job < range.end) return job;
  }
  return -1;
}

// Whoever asks is about to begin a loop: it gets on.
int NumThreads() {
  Pulse::Beat();
  return PlanScope::Active() ? PlanScope::Threads() : omp_get_max_threads();
}

}  // namespace fathom

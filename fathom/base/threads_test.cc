#include "fathom/base/threads.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "fathom/base/trace.h"

namespace fathom {
namespace {

TEST(OwnRange, CoversAllAndOwnerOfFindsIt) {
  for (const int64_t n : {1, 2, 7, 48, 1000}) {
    for (const int64_t owners : {1, 2, 3, 48, 64}) {
      int64_t next = 0;
      for (int64_t owner = 0; owner < owners; ++owner) {
        const auto [begin, end] = OwnRange(n, owner, owners);
        EXPECT_EQ(begin, next);
        for (int64_t i = begin; i < end; ++i) EXPECT_EQ(OwnerOf(i, n, owners), owner) << i << " of " << n;
        next = end;
      }
      EXPECT_EQ(next, n);
    }
  }
}

TEST(JobQueue, GivesAWorkerItsOwnAndThenWhatIsLeft) {
  JobQueue jobs(10, 3);  // 0..2, 3..5, 6..9
  EXPECT_EQ(jobs.Next(1), 3);
  EXPECT_EQ(jobs.Next(0), 0);
  EXPECT_EQ(jobs.Next(1), 4);
  EXPECT_EQ(jobs.Next(1), 5);
  std::vector<int64_t> left;
  for (int64_t i = 0; (i = jobs.Next(1)) >= 0;) left.push_back(i);
  EXPECT_EQ(left, (std::vector<int64_t>{6, 7, 8, 9, 1, 2}));
  EXPECT_LT(jobs.Next(0), 0);
}

TEST(ParallelJobs, RunsEachOnceOnManyMoreThreadsThanCores) {
  SetThreads(64);
  std::vector<int> runs(1000);
  ParallelJobs(1000, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
  EXPECT_EQ(runs, std::vector<int>(1000, 1));
  SetThreads(0);
}

double Planned(int threads, const std::vector<double>& costs) {
  Trace trace;
  {
    const PlanScope plan(threads);
    const TraceScope scope(trace);
    const TraceSlice slice("kernel");
    ParallelWorkerJobs(
        std::ssize(costs), [&](int64_t i) { return costs[static_cast<size_t>(i)]; }, [](int64_t, int) { FAIL() << "a plan runs nothing"; });
  }
  return trace.slices().back().largest_over_mean;
}

TEST(PlannedJobs, GoToWhoeverIsFree) {
  EXPECT_DOUBLE_EQ(Planned(2, {3, 1, 1, 1}), 1);
  EXPECT_DOUBLE_EQ(Planned(2, {1, 1, 1, 3}), 4 / 3.0);
  EXPECT_DOUBLE_EQ(Planned(4, {1, 1}), 2);
  std::vector<double> many(1000, 1);
  many[3] = 5;
  EXPECT_DOUBLE_EQ(Planned(2, many), (1004 / 2.0 + 5) / (1004 / 2.0));
}

// Run with OMP_PROC_BIND and OMP_PLACES: threads are where these say, and as many as the places have cores.
TEST(Places, AreRespected) {
  if (omp_get_num_places() == 0) GTEST_SKIP() << "no places are asked for";
  int cores = 0;
  for (int i = 0; i < omp_get_num_places(); ++i) cores += omp_get_place_num_procs(i);
  EXPECT_EQ(AllowedCores(), cores);
  SetThreads(0);
  std::vector<int> place(static_cast<size_t>(NumThreads()), -1), own(place.size());
#pragma omp parallel num_threads(NumThreads())
  {
    const auto t = static_cast<size_t>(omp_get_thread_num());
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof(set), &set);
    place[t] = omp_get_place_num();
    std::vector<int> ids(static_cast<size_t>(omp_get_place_num_procs(place[t])));
    omp_get_place_proc_ids(place[t], ids.data());
    own[t] = CPU_COUNT(&set) == std::ssize(ids) && std::ranges::all_of(ids, [&](int id) { return CPU_ISSET(id, &set); });
  }
  EXPECT_EQ(own, std::vector<int>(own.size(), 1));
  std::ranges::sort(place);
  std::vector<int> each(place.size());
  std::iota(each.begin(), each.end(), 0);
  if (omp_get_num_places() == cores) {
    EXPECT_EQ(place, each);
  }
}

}  // namespace
}  // namespace fathom

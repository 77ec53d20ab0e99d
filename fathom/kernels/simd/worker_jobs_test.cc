#include "fathom/kernels/simd/worker_jobs.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "fathom/base/plan_scope.h"

namespace fathom {
namespace {

TEST(JobTable, NumbersTheJobsOfItemsThrough) {
  Arena arena(1 << 16);
  const std::vector<int64_t> jobs = {2, 0, 3, 1, 0};
  const JobTable table(arena, std::ssize(jobs), [&](int64_t i) { return jobs[static_cast<size_t>(i)]; });
  ASSERT_EQ(table.size(), 6);
  std::vector<std::vector<int64_t>> seen(jobs.size());
  for (int64_t job = 0; job < table.size(); ++job) {
    const auto [item, index] = table.At(job);
    EXPECT_EQ(table.First(item) + index, job);
    seen[static_cast<size_t>(item)].push_back(index);
  }
  EXPECT_EQ(seen, (std::vector<std::vector<int64_t>>{{0, 1}, {}, {0, 1, 2}, {0}, {}}));
  EXPECT_EQ(JobTable(arena, 0, [](int64_t) { return int64_t{1}; }).size(), 0);
}

TEST(WorkerScratch, RunsEachJobOnceWithScratchThatNobodyElseWrites) {
  SetThreads(4);
  Arena arena(1 << 20);
  constexpr int64_t kEach = 128;
  const WorkerScratch<int64_t> scratch(arena, kEach);
  EXPECT_EQ(arena.used(), NumWorkers() * kEach * 8);
  std::vector<int> runs(500);
  std::atomic<int> disturbed = 0;
  scratch.Run(std::ssize(runs), [&](int64_t job, int64_t* own) {
    ++runs[static_cast<size_t>(job)];
    std::fill_n(own, kEach, job);
    for (int64_t i = 0; i < kEach; ++i) disturbed += own[i] != job;
  });
  EXPECT_EQ(disturbed, 0);
  EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
  SetThreads(0);
}

TEST(WorkerScratch, IsCountedAndNotUsedUnderAPlan) {
  const PlanScope plan(4);
  Arena arena(0);
  const WorkerScratch<float> scratch(arena, 64);
  scratch.Run(8, [](int64_t, float*) { FAIL() << "ran"; });
  EXPECT_EQ(arena.used(), NumWorkers() * 64 * 4);
}

}  // namespace
}  // namespace fathom

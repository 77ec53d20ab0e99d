#include "fathom/base/pulse.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "fathom/base/threads.h"

namespace fathom {
namespace {

TEST(Pulse, LoopsBeatWhileTheyRun) {
  Pulse pulse;
  const Pulse::Scope scope(pulse);
  SetThreads(2);
  std::vector<int64_t> beats;
  const auto note = [&] {
#pragma omp critical
    beats.push_back(pulse.Read().beats);
  };
  const auto grown = [&](size_t calls) {  // by at least one in every two calls: the two threads note it after both have beaten
    EXPECT_EQ(beats.size(), calls);
    EXPECT_GE(beats.back(), beats.front() + std::ssize(beats) / 2 - 1);
    beats.clear();
  };
  ParallelJobs(40, [&](int64_t) { note(); });
  grown(40);
  ParallelWorkerJobs(40, [&](int64_t, int) { note(); });
  grown(40);
  ParallelRanges(64000, 10, [&](int64_t, int64_t) { note(); });
  grown(128);
  SetThreads(1);
  ParallelJobs(40, [&](int64_t) { note(); });
  grown(40);
}

TEST(Pulse, RangesInPiecesCoverAllOnce) {
  Pulse pulse;
  const Pulse::Scope scope(pulse);
  for (const int64_t n : {1, 159, 160, 161, 70001}) {
    std::vector<int> seen(static_cast<size_t>(n));
    ParallelRanges(n, 10, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
    });
    EXPECT_EQ(std::ranges::count(seen, 1), n);
  }
}

TEST(Pulse, WithoutAWatcherARangeIsWhole) {
  SetThreads(1);
  int calls = 0;
  ParallelRanges(1 << 20, 1, [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 1);
}

// What another thread waits for is what the main one does, while that waits for it.
TEST(Pulse, MainThreadWaitsForRanksThroughAnother) {
  Pulse pulse;
  const Pulse::Scope scope(pulse);
  std::jthread([] { Pulse::Waiting(true); }).join();
  EXPECT_EQ(pulse.Read().waiting, 0);
  {
    const Pulse::Beside beside;
    EXPECT_EQ(pulse.Read().waiting, 1);
    std::jthread([] { Pulse::Waiting(false); }).join();
    EXPECT_EQ(pulse.Read().waiting, 0);
  }
  Pulse::Waiting(true);
  EXPECT_EQ(pulse.Read().waiting, 1);
}

TEST(Pulse, AnyThreadWaitsOutsideAndBeats) {
  Pulse pulse;
  const Pulse::Scope scope(pulse);
  const int64_t before = pulse.Read().beats;
  std::jthread([&] {
    const Pulse::Outside disk;
    EXPECT_EQ(pulse.Read().outside, 1);
    Pulse::NoteBlock();
  }).join();
  EXPECT_EQ(pulse.Read().outside, 0);
  EXPECT_GT(pulse.Read().beats, before + 1);
}

TEST(Pulse, IsDescribed) {
  EXPECT_EQ(Describe({.step = 3, .layer = 2, .activity = Activity::kBackward, .waiting = 1}),
            "step 3, layer 2, backward, waiting for other ranks");
  EXPECT_EQ(Describe({.step = 3, .layer = 2, .activity = Activity::kSaving, .outside = 1}),
            "step 3, saving, waiting for a disk or for input");
}

}  // namespace
}  // namespace fathom

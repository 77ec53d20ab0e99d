#include "fathom/parallel/watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <latch>

#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/parallel/test_threads.h"

namespace fathom {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Watch::Times kTimes{.patience = 0.5, .tick = 0.02, .grace = 0.1, .last_word = 0.1};

void Nap() { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

// Ranks that are threads, each with a watch, until one of them is told to end the job, or for so many seconds.
class Job {
 public:
  explicit Job(int ranks) : mail_(std::make_shared<ThreadTransport::Mail>(ranks)), ready_(ranks) {}

  // live(rank) is called again and again on every rank's main thread; rank absent, if there is one, is that process and has no watch.
  template <class F>
  void Run(double seconds, const F& live, int absent = -1, pid_t pid = 0) {
    const Stopwatch clock;
    std::vector<std::jthread> threads;
    for (int r = 0; r < mail_->size; ++r) {
      threads.emplace_back([&, r] {
        const auto transport = std::make_shared<ThreadTransport>(mail_, r);
        if (r == absent) return Introduce(Comm(transport), pid);
        Pulse pulse;
        const Pulse::Scope scope(pulse);
        const Watch watch(
            transport, Comm(transport), pulse, kTimes, [this, r](const std::string& line) { Said(r, line); },
            [this, r](Watch::End how) { End(r, how); });
        ready_.arrive_and_wait();
        while (!over_ && clock.Seconds() < seconds) {
          live(r);
          Nap();
        }
        over_ = true;
      });
    }
  }

  std::vector<std::pair<int, std::string>> said;
  std::vector<std::pair<int, Watch::End>> ends;

 private:
  // Tells the others that this rank is the process with that number, and kills it.
  void Introduce(const Comm& world, pid_t pid) {
    Peer peer = ThisProcess();
    peer.pid = pid;
    std::vector<Peer> peers(static_cast<size_t>(world.size()));
    std::vector<std::span<std::byte>> parts;
    for (Peer& p : peers) parts.push_back(BytesOf(std::span(&p, 1)));
    world.AllGather(BytesOf(std::span<const Peer>(&peer, 1)), parts);
    ready_.arrive_and_wait();
    ::kill(pid, SIGKILL);
  }
  void Said(int rank, const std::string& line) {
    const std::scoped_lock lock(mutex_);
    said.emplace_back(rank, line);
  }
  // The job's other ranks end a while later, as a launcher ends them.
  void End(int rank, Watch::End how) {
    {
      const std::scoped_lock lock(mutex_);
      ends.emplace_back(rank, how);
    }
    for (const Stopwatch clock; clock.Seconds() < 0.3 && !over_;) Nap();
    over_ = true;
  }

  std::shared_ptr<ThreadTransport::Mail> mail_;
  std::latch ready_;
  std::atomic<bool> over_ = false;
  std::mutex mutex_;
};

// Of one rank, or of all (-1), nothing is seen; the others get on.
auto Stuck(int which) {
  return [which](int rank) {
    if (which >= 0 && rank != which) Pulse::Beat();
  };
}

TEST(Watch, RankThatStandsStillSaysSo) {
  Job job(3);
  job.Run(20, Stuck(1));
  ASSERT_THAT(job.said, SizeIs(1));
  EXPECT_EQ(job.said[0].first, 1);
  EXPECT_THAT(job.said[0].second, HasSubstr("fathom: error: rank 1 on "));
  EXPECT_THAT(job.said[0].second, HasSubstr("has not got on for 0 s; it is at starting\n"));
  EXPECT_THAT(job.ends, SizeIs(1));
  EXPECT_EQ(job.ends[0], std::pair(1, Watch::End::kAbort));
}

TEST(Watch, OfManyThatStandStillOneSaysSo) {
  Job job(4);
  job.Run(20, Stuck(-1));
  EXPECT_THAT(job.said, SizeIs(1));
}

TEST(Watch, RanksThatWaitForEachOtherAreNamed) {
  Job job(2);
  std::array<bool, 2> told = {};
  job.Run(20, [&](int rank) {
    if (!std::exchange(told[static_cast<size_t>(rank)], true)) Pulse::Waiting(true);
  });
  ASSERT_THAT(job.said, SizeIs(1));
  EXPECT_THAT(job.said[0].second, HasSubstr("waited for each other for 0 s: rank 0 at starting, waiting for other ranks; rank 1 at"));
}

TEST(Watch, EffortIsAlive) {
  Job job(2);
  job.Run(2 * kTimes.patience, [](int rank) {
    for (const Stopwatch clock; rank == 1 && clock.Seconds() < 0.05;) continue;
    Stuck(1)(rank);
  });
  EXPECT_THAT(job.said, IsEmpty());
  EXPECT_THAT(job.ends, IsEmpty());
}

TEST(Watch, ProcessThatEndsIsNamedByOneRank) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) ::pause();
  }
  Job job(3);
  job.Run(20, Stuck(2), 2, child);
  ::waitpid(child, nullptr, 0);
  ASSERT_THAT(job.said, SizeIs(1));
  EXPECT_EQ(job.said[0].first, 0);
  EXPECT_THAT(job.said[0].second, HasSubstr(fmt::format("(process {}) has ended without a word", child)));
  for (const auto& [rank, how] : job.ends) EXPECT_EQ(how, Watch::End::kLeave);
}

// A rank that fails says why itself, and who sees it end is silent.
TEST(Watch, RankThatFailsIsLeftTheWord) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) ::pause();
  }
  Job job(2);
  job.Run(
      1, [](int) { Pulse::At(Activity::kFailed); }, 1, child);
  ::waitpid(child, nullptr, 0);
  EXPECT_THAT(job.said, IsEmpty());
}

}  // namespace
}  // namespace fathom

#include "fathom/parallel/courier.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <csignal>
#include <stdexcept>
#include <vector>

#include "fathom/base/threads.h"

namespace fathom {
namespace {

TEST(Courier, RunsErrandsInOrderOnAThreadOfItsOwn) {
  std::vector<int> done;
  std::thread::id other;
  int threads = 0;
  bool signals_blocked = false;
  SetThreads(2);
  {
    Courier courier;
    for (int i = 0; i < 5; ++i) courier.Post(std::packaged_task<void()>([&, i] { done.push_back(i); }));
    courier
        .Post(std::packaged_task<void()>([&] {
          other = std::this_thread::get_id();
          threads = NumThreads();
          sigset_t blocked;
          pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
          signals_blocked = sigismember(&blocked, SIGTERM) == 1;
        }))
        .get();
  }
  EXPECT_EQ(done, (std::vector<int>{0, 1, 2, 3, 4}));
  EXPECT_NE(other, std::this_thread::get_id());
  EXPECT_EQ(threads, 1);
  EXPECT_TRUE(signals_blocked);
  sigset_t blocked;
  pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
  EXPECT_EQ(sigismember(&blocked, SIGTERM), 0);
}

TEST(Courier, HandsOnWhatAnErrandThrowsAndGoesOn) {
  Courier courier;
  auto thrown = courier.Post(std::packaged_task<void()>([] { throw std::runtime_error("lost"); }));
  bool ran = false;
  courier.Post(std::packaged_task<void()>([&] { ran = true; })).get();
  EXPECT_TRUE(ran);
  EXPECT_THROW(thrown.get(), std::runtime_error);
}

TEST(Courier, EndsAfterTheLastErrand) {
  int done = 0;
  {
    Courier courier;
    for (int i = 0; i < 100; ++i) courier.Post(std::packaged_task<void()>([&] { ++done; }));
  }
  EXPECT_EQ(done, 100);
  const Courier unused;
}

}  // namespace
}  // namespace fathom

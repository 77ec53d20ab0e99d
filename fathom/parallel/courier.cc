#include "fathom/parallel/courier.h"

#include <pthread.h>

#include <csignal>

#include "fathom/base/threads.h"

namespace fathom {

Courier::~Courier() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    ends_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

std::future<void> Courier::Post(std::packaged_task<void()> errand) {
  if (!thread_.joinable()) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are the main thread's
    thread_ = std::thread([this] { Run(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  std::future<void> done = errand.get_future();
  {
    const std::scoped_lock lock(mutex_);
    errands_.push_back(std::move(errand));
  }
  changed_.notify_one();
  return done;
}

void Courier::Run() {
  UnbindThread();
  SetThreads(1);
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ends_ || !errands_.empty(); });
    if (errands_.empty()) return;
    std::packaged_task<void()> errand = std::move(errands_.front());
    errands_.pop_front();
    lock.unlock();
    errand();
  }
}

}  // namespace fathom

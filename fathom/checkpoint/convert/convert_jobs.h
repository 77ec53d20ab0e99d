// Runs the jobs of a conversion on several threads and brings the first error back to the caller.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>

#include "fathom/base/threads.h"

namespace fathom {

class JobRunner {
 public:
  // workers: at most this many threads, and at most NumThreads().
  explicit JobRunner(int workers) : workers_(std::max(1, std::min(workers, NumThreads()))) {}
  int workers() const { return workers_; }

  // f(job, worker) for every job in [0, n), started in order. The first exception stops the rest and is thrown again.
  template <class F>
  void Run(int64_t n, const F& f) {
    next_ = 0;
    turn_ = 0;
    error_ = nullptr;
#pragma omp parallel num_threads(workers_)
    {
      const int worker = omp_get_thread_num();
      for (int64_t job = next_++; job < n && !Stopped(); job = next_++) {
        try {
          f(job, worker);
          Pulse::NoteBlock();
        } catch (...) {
          Stop(std::current_exception());
        }
      }
    }
    if (error_) std::rethrow_exception(error_);
  }

  // Called once by every job: runs g when all earlier jobs have been here. False: another job failed, g did not run.
  template <class G>
  bool InOrder(int64_t job, const G& g) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return turn_ == job || error_ != nullptr; });
    if (error_ != nullptr) return false;
    g();
    ++turn_;
    changed_.notify_all();
    return true;
  }

 private:
  bool Stopped() {
    const std::scoped_lock lock(mutex_);
    return error_ != nullptr;
  }
  void Stop(std::exception_ptr error) {
    const std::scoped_lock lock(mutex_);
    if (error_ == nullptr) error_ = error;
    changed_.notify_all();
  }

  int workers_;
  std::atomic<int64_t> next_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t turn_ = 0;
  std::exception_ptr error_;
};

}  // namespace fathom

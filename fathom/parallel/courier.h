// A thread that does what a rank has to tell others while its main thread computes.
#pragma once

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

namespace fathom {

class Courier {
 public:
  Courier() = default;  // the thread begins with the first errand
  ~Courier();           // after the last of them
  Courier(const Courier&) = delete;
  Courier& operator=(const Courier&) = delete;
  // Runs the errand when all before it are done, on one core; what it throws, the future does.
  std::future<void> Post(std::packaged_task<void()> errand);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<void()>> errands_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace fathom

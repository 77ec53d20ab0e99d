// What a group's ranks tell each other while they compute: a courier's errands in a channel of their own.
#pragma once

#include <deque>
#include <functional>
#include <future>
#include <memory>

#include "fathom/base/trace.h"
#include "fathom/parallel/comm.h"
#include "fathom/parallel/courier.h"

namespace fathom {

class Beside {
 public:
  // comm: gets the traffic, of which what passes between Begin and Await is hidden. All that talks in the channel is this courier's.
  Beside(const Comm& comm, Channel channel, Courier& courier)
      : comm_(comm), other_(comm.InChannel(channel)), track_(1000 + static_cast<int>(channel)), courier_(courier) {}

  // Has the courier call errand with the group in its channel, after those that were begun before; every rank of the group begins the same
  // ones in the same order. What it reads and writes is its own until Await. Under a PlanScope it is called at once, with the group itself.
  void Begin(std::function<void(const Comm&)> errand);
  // Until the first that has not been waited for is done, and what it threw; all of them.
  void Await();
  void AwaitAll();
  bool idle() const { return errands_.empty(); }

 private:
  struct Errand {
    std::future<void> done;
    Trace* trace = nullptr;      // of the thread that began it; null: it records nothing
    int64_t begin = 0, end = 0;  // there
  };
  void Record(const Errand& errand) const;

  Comm comm_, other_;
  int track_;  // in traces, apart from those of the threads that compute
  Courier& courier_;
  std::deque<std::unique_ptr<Errand>> errands_;
  Traffic counted_;    // of the other channel, at the last time that all were done
  double waited_ = 0;  // since
};

}  // namespace fathom

#include "fathom/parallel/beside.h"

#include <algorithm>
#include <utility>

#include "fathom/base/clock.h"
#include "fathom/base/plan_scope.h"
#include "fathom/base/pulse.h"

namespace fathom {

void Beside::Begin(std::function<void(const Comm&)> errand) {
  if (PlanScope::Active()) return errand(comm_);
  Errand& mine = *errands_.emplace_back(std::make_unique<Errand>());
  mine.trace = TraceScope::Active();
  mine.done = courier_.Post(std::packaged_task<void()>([this, &mine, errand = std::move(errand)] {
    if (mine.trace != nullptr) mine.begin = mine.trace->Now();
    errand(other_);
    if (mine.trace != nullptr) mine.end = mine.trace->Now();
  }));
}

// In a track of its own: what of it does not stand in the main thread's was hidden.
void Beside::Record(const Errand& errand) const {
  if (errand.trace == nullptr || errand.trace != TraceScope::Active()) return;
  errand.trace->Add({comm_.label(), -1, -1, track_, errand.begin, errand.end, 0, 0, 0});
}

void Beside::Await() {
  if (errands_.empty()) return;
  const std::unique_ptr<Errand> errand = std::move(errands_.front());
  errands_.pop_front();
  const TraceSlice slice(comm_.label());
  const Stopwatch clock;
  {
    const Pulse::Beside courier;
    errand->done.get();
  }
  Record(*errand);
  const double waited = clock.Seconds();
  if (!errands_.empty()) {  // what the channel has sent so far may be theirs
    comm_.AddTraffic({.seconds = waited});
    waited_ += waited;
    return;
  }
  const Traffic now = other_.traffic();
  const double took = now.seconds - counted_.seconds, all_waited = waited + std::exchange(waited_, 0);
  comm_.AddTraffic({.bytes_sent = now.bytes_sent - counted_.bytes_sent,
                    .messages = now.messages - counted_.messages,
                    .seconds = waited,
                    .hidden_seconds = std::max(0.0, took - all_waited)});
  counted_ = now;
}

void Beside::AwaitAll() {
  while (!idle()) Await();
}

}  // namespace fathom

// Whether the ranks of a job get on, as one of them judges it once a tick from what it hears of the others.
//
// Every rank judges itself: a thread that computes and does not beat is stuck. The first rank hears all others, and they hear it: one that
// is silent is stopped, or its machine is. The first also sees that all of them wait for each other. Time is counted in the rank's own
// ticks, so that a rank which was itself stopped blames nobody.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fathom/base/pulse.h"

namespace fathom {

struct Alarm {
  enum Kind { kStuck, kSilent, kDeadlock } kind = kStuck;
  int rank = 0;       // whose fault it is; of kDeadlock any
  PulseReading last;  // what it was at
};

class Vigil {
 public:
  // patience: ticks without progress that are borne.
  Vigil(int rank, int ranks, int64_t patience);
  void Hear(int from, const PulseReading& reading);
  // Once a tick, after all has been heard.
  std::optional<Alarm> Tick(const PulseReading& own);
  const PulseReading& last(int rank) const { return ranks_[static_cast<size_t>(rank)].last; }

 private:
  struct Heard {
    PulseReading last;
    int64_t silent = 0;  // ticks since it was heard
    bool moved = true;   // since the last tick
  };
  bool AllWait() const;

  int rank_;
  int64_t patience_, still_ = 0, waiting_ = 0;  // ticks: this rank has not moved; all ranks wait and none has moved
  std::vector<Heard> ranks_;
};

}  // namespace fathom

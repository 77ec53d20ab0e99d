// Whether the ranks of a job get on, as one of them judges it once a tick from what it hears of the others.
//
// Every rank judges itself: one that neither beats nor uses its cores, and does not wait for others, is stuck. The first rank hears all
// others, and they hear it: one that is silent is stopped, or its machine is. The first also sees that all of them wait for each other.
// Time is counted in the rank's own ticks, so that a rank which was itself stopped blames nobody.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fathom/base/pulse.h"

namespace fathom {

struct Alarm {
  enum Kind { kStuck, kBusy, kSilent, kDeadlock } kind = kStuck;
  int rank = 0;       // whose fault it is; of kDeadlock any
  PulseReading last;  // what it was at
  int64_t ticks = 0;  // that were borne
};

class Vigil {
 public:
  // How many times the patience is borne where a rank may well be alive and show less: it waits for what gives no sign of life, or it uses
  // its cores in a step and neither begins a loop nor ends a job of one.
  static constexpr int64_t kLenience = 10;
  // patience: ticks without progress that are borne.
  Vigil(int rank, int ranks, int64_t patience);
  void Hear(int from, const PulseReading& reading);
  // Once a tick, after all has been heard. effort: grows while this rank uses its cores or disks.
  std::optional<Alarm> Tick(const PulseReading& own, int64_t effort);
  const PulseReading& last(int rank) const { return ranks_[static_cast<size_t>(rank)].last; }

 private:
  struct Heard {
    PulseReading last;
    int64_t silent = 0;  // ticks since it was heard
    bool moved = true;   // since the last tick
  };
  bool AllWait() const;
  std::optional<Alarm> JudgeItself(const PulseReading& own, int64_t effort);

  int rank_;
  int64_t patience_, effort_ = -1;
  int64_t beatless_ = 0, idle_ = 0, waiting_ = 0;  // ticks: this rank has not beaten; nor made an effort; all ranks wait and none has moved
  std::vector<Heard> ranks_;
};

}  // namespace fathom

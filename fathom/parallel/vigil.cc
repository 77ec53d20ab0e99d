#include "fathom/parallel/vigil.h"

#include <algorithm>

namespace fathom {
namespace {

constexpr int64_t kTurn = 4;  // ticks that others leave the second rank to say that the first is silent

}  // namespace

Vigil::Vigil(int rank, int ranks, int64_t patience) : rank_(rank), patience_(patience), ranks_(static_cast<size_t>(ranks)) {}

void Vigil::Hear(int from, const PulseReading& reading) {
  Heard& heard = ranks_[static_cast<size_t>(from)];
  heard.moved |= !(heard.last == reading);
  heard.last = reading;
  heard.silent = 0;
}

bool Vigil::AllWait() const {
  return std::ranges::all_of(ranks_, [](const Heard& r) { return r.last.waiting != 0 && !r.moved; });
}

std::optional<Alarm> Vigil::JudgeItself(const PulseReading& own, int64_t effort) {
  const bool beats = own.waiting != 0 || own.activity == Activity::kFailed || !(own == last(rank_));
  beatless_ = beats ? 0 : beatless_ + 1;
  idle_ = beats || effort != effort_ ? 0 : idle_ + 1;
  effort_ = effort;
  if (idle_ > patience_ * (own.outside != 0 ? kLenience : 1)) return Alarm{Alarm::kStuck, rank_, own, idle_ - 1};
  if (own.computes() && beatless_ > patience_ * kLenience) return Alarm{Alarm::kBusy, rank_, own, beatless_ - 1};
  return std::nullopt;
}

std::optional<Alarm> Vigil::Tick(const PulseReading& own, int64_t effort) {
  const auto stuck = JudgeItself(own, effort);
  Hear(rank_, own);
  if (stuck) return stuck;
  const int first = rank_ == 0 ? 1 : 0, last = rank_ == 0 ? static_cast<int>(ranks_.size()) : 1;
  for (int r = first; r < last; ++r) {
    if (++ranks_[static_cast<size_t>(r)].silent > patience_ + (rank_ > 1 ? kTurn : 0))
      return Alarm{Alarm::kSilent, r, this->last(r), patience_};
  }
  if (rank_ != 0) return std::nullopt;
  waiting_ = AllWait() ? waiting_ + 1 : 0;
  for (Heard& r : ranks_) r.moved = false;
  if (waiting_ > patience_) return Alarm{Alarm::kDeadlock, rank_, own, patience_};
  return std::nullopt;
}

}  // namespace fathom

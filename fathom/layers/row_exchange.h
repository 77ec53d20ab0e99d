// Rows that travel to the ranks that have their experts, and back (dropless: as many as the router says).
#pragma once

#include <span>
#include <vector>

#include "fathom/layers/context.h"

namespace fathom {

// How many rows of which expert come from which rank. Experts are divided evenly: rank r of n has E/n of them, from r*E/n on.
struct HeldRows {
  std::span<int64_t> counts;  // [n*E/n] rows from rank r for expert e of this rank's: counts[r*E/n + e]
  std::span<int64_t> begin;   // [E/n+1] rows of this rank's experts where they have come: those of an expert in the order of the ranks
};

class RowExchange {
 public:
  // begin [E+1]: rows of each expert on this rank.
  RowExchange(const Comm& comm, std::span<const int64_t> begin, const HeldRows& held) : comm_(comm), begin_(begin), held_(held) {}

  // Fills held; collective. Under a PlanScope: every rank sends all of its rows here, or, if they are to be even, as many as go there.
  void Count();
  int64_t held() const { return held_.begin.back(); }
  // rows [R,D], sorted by expert; to [held(),D], overwritten; contiguous, of one dtype. beside: what is to be waited for (null: nothing
  // is).
  void ToExperts(ConstView rows, View to, Beside* beside = nullptr) const;
  // The way back: rows [held(),D], to [R,D].
  void FromExperts(ConstView rows, View to, Beside* beside = nullptr) const;

 private:
  void CountEven(int64_t row_bytes) const;
  void Send(std::vector<Outgoing> out, std::vector<Incoming> in, Beside* beside) const;
  template <class F>
  void ForBlocks(const F& f) const;

  const Comm& comm_;
  std::span<const int64_t> begin_;
  HeldRows held_;
};

}  // namespace fathom

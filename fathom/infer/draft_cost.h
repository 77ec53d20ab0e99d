// Does drafting pay? A pass over several tokens reads more experts and multiplies more rows than a pass over one, so with few drafts
// accepted it can lose. Both ways are timed on the answer itself.
#pragma once

#include <array>
#include <cstdint>

namespace fathom {

class DraftCost {
 public:
  DraftCost();
  // Take the next pass with drafts?
  bool UseDrafts() const { return drafting_; }
  // The pass that UseDrafts() asked for gave this many tokens in this time.
  void Note(int64_t tokens, double seconds);

  // Over the whole answer, but for the first pass of each trial.
  struct Totals {
    int64_t tokens = 0;
    double seconds = 0;
    double TokensPerSecond() const { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }
  };
  const Totals& drafted() const { return totals_[1]; }
  const Totals& plain() const { return totals_[0]; }

 private:
  double Rate(bool drafting) const;

  struct Recent {
    std::array<double, 16> seconds{};  // of the last passes, around a ring
    int64_t passes = 0;
    double tokens = 0, weight = 0;  // fading sums
    bool warm = false;
  };
  bool drafting_ = true, settled_ = false;
  int64_t left_;  // passes until the next decision
  std::array<Recent, 2> recent_;
  std::array<Totals, 2> totals_;
};

}  // namespace fathom

#include "fathom/infer/draft_cost.h"

#include <algorithm>

namespace fathom {
namespace {

constexpr int64_t kTrial = 17, kStay = 128;  // passes; the first of a trial is not timed
constexpr double kFade = 0.95;

}  // namespace

DraftCost::DraftCost() : left_(kTrial) {}

// Tokens of a pass over the median time of one: passes that another program interrupted don't decide.
double DraftCost::Rate(bool drafting) const {
  const Recent& r = recent_[drafting];
  if (r.passes == 0) return 0;
  auto seconds = r.seconds;
  const int64_t count = std::min<int64_t>(r.passes, std::ssize(seconds));
  std::nth_element(seconds.begin(), seconds.begin() + count / 2, seconds.begin() + count);
  return r.tokens / r.weight / seconds[static_cast<size_t>(count / 2)];
}

// A trial of one way, a trial of the other, the faster for a while, then a trial of the slower again, since text and context change.
void DraftCost::Note(int64_t tokens, double seconds) {
  Recent& recent = recent_[drafting_];
  if (recent.warm) {
    recent.tokens = kFade * recent.tokens + static_cast<double>(tokens);
    recent.weight = kFade * recent.weight + 1;
    recent.seconds[static_cast<size_t>(recent.passes++) % recent.seconds.size()] = seconds;
    totals_[drafting_].tokens += tokens;
    totals_[drafting_].seconds += seconds;
  }
  recent.warm = true;  // the first pass pays for what is made once per shape
  if (--left_ > 0) return;
  settled_ = !settled_ && Rate(!drafting_) > 0;
  if (settled_) {
    drafting_ = Rate(true) > Rate(false);
    left_ = kStay;
  } else {
    drafting_ = !drafting_;
    recent_[drafting_] = {};
    left_ = kTrial;
  }
}

}  // namespace fathom

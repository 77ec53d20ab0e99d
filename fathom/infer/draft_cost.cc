#include "fathom/infer/draft_cost.h"

namespace fathom {
namespace {

constexpr int64_t kTrial = 9, kStay = 128;  // passes; the first of a trial is not timed
constexpr double kFade = 0.9;

}  // namespace

DraftCost::DraftCost() : left_(kTrial) {}

double DraftCost::Rate(bool drafting) const {
  const Recent& r = recent_[drafting];
  return r.seconds > 0 ? r.tokens / r.seconds : 0;
}

// A trial of one way, a trial of the other, the faster for a while, then a trial of the slower again, since text and context change.
void DraftCost::Note(int64_t tokens, double seconds) {
  Recent& recent = recent_[drafting_];
  if (recent.warm) {
    recent.tokens = kFade * recent.tokens + static_cast<double>(tokens);
    recent.seconds = kFade * recent.seconds + seconds;
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

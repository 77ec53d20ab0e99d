#include "fathom/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "fathom/base/error.h"

namespace fathom {
namespace {

// From 1 at i = 0 to 0 at i = n - 1.
double Decay(DecayStyle style, int64_t i, int64_t n) {
  const double x = static_cast<double>(i) / static_cast<double>(std::max<int64_t>(n - 1, 1));
  return style == DecayStyle::kLinear ? 1 - x : 0.5 * (std::cos(std::numbers::pi * x) + 1);
}

void CheckFraction(const char* flag, double value) {
  if (!(value >= 0 && value <= 1)) Throw(ErrorCode::kUsage, "{}={}: must lie between 0 and 1", flag, value);
}

int64_t PartOfSteps(const ScheduleConfig& c, double fraction) { return static_cast<int64_t>(static_cast<double>(c.steps) * fraction); }

}  // namespace

ScheduleType ParseScheduleType(std::string_view name) {
  if (name == "cosine") return ScheduleType::kCosine;
  if (name == "wsd") return ScheduleType::kWsd;
  Throw(ErrorCode::kUsage, "lr_schedule_type={}: must be cosine or wsd", name);
}

DecayStyle ParseDecayStyle(std::string_view name) {
  if (name == "linear") return DecayStyle::kLinear;
  if (name == "cosine") return DecayStyle::kCosine;
  Throw(ErrorCode::kUsage, "wsd_decay_style={}: must be linear or cosine", name);
}

void CheckSchedule(const ScheduleConfig& c) {
  if (!(c.learning_rate >= 0) || std::isinf(c.learning_rate)) {
    Throw(ErrorCode::kUsage, "learning_rate={}: must be a finite number, 0 or more", c.learning_rate);
  }
  if (c.steps < 1) Throw(ErrorCode::kUsage, "learning_rate_schedule_steps={}: must be 1 or more (set steps)", c.steps);
  CheckFraction("learning_rate_final_fraction", c.final_fraction);
  CheckFraction("warmup_steps_fraction", c.warmup_steps_fraction);
  CheckFraction("wsd_decay_steps_fraction", c.wsd_decay_steps_fraction);
  if (c.type == ScheduleType::kWsd && c.warmup_steps_fraction + c.wsd_decay_steps_fraction > 1) {
    Throw(ErrorCode::kUsage, "warmup_steps_fraction={} and wsd_decay_steps_fraction={}: together more than the whole schedule",
          c.warmup_steps_fraction, c.wsd_decay_steps_fraction);
  }
}

double LearningRate(const ScheduleConfig& c, int64_t step) {
  FATHOM_CHECK(step >= 0, "step {}", step);
  if (step >= c.steps) return 0;
  const int64_t warmup = PartOfSteps(c, c.warmup_steps_fraction);
  if (step < warmup) return c.learning_rate * static_cast<double>(step) / static_cast<double>(warmup);
  const bool cosine = c.type == ScheduleType::kCosine;
  const int64_t n = cosine ? c.steps - warmup : PartOfSteps(c, c.wsd_decay_steps_fraction);
  const int64_t i = step - (c.steps - n);
  if (i < 0) return c.learning_rate;
  const double a = Decay(cosine ? DecayStyle::kCosine : c.wsd_decay_style, i, n);
  return c.learning_rate * (a + c.final_fraction * (1 - a));
}

}  // namespace fathom

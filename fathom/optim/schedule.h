// The learning rate of each step: linear warm-up, then a cosine, or constant and a decay at the end (WSD). The shapes are MaxText's.
#pragma once

#include <cstdint>
#include <string_view>

namespace fathom {

enum class ScheduleType { kCosine, kWsd };
enum class DecayStyle { kLinear, kCosine };

struct ScheduleConfig {
  ScheduleType type = ScheduleType::kCosine;
  DecayStyle wsd_decay_style = DecayStyle::kLinear;
  double learning_rate = 3e-5;         // the peak
  double final_fraction = 0.1;         // of the peak, at the last step of the schedule
  double warmup_steps_fraction = 0.1;  // of the steps
  double wsd_decay_steps_fraction = 0.1;
  int64_t steps = 0;  // N; after them the rate is 0
};

// "cosine"|"wsd", "linear"|"cosine". Throw Error(kUsage) naming the flag and what is allowed.
ScheduleType ParseScheduleType(std::string_view name);
DecayStyle ParseDecayStyle(std::string_view name);

// Throws Error(kUsage) naming the flag: a negative rate, a fraction outside 0..1, warm-up and decay longer than the schedule, no steps.
void CheckSchedule(const ScheduleConfig& config);

// step counts from 0. With w = int(N * warmup_steps_fraction): step * peak / w for step < w (so the first update changes nothing when
// there is a warm-up). Cosine: peak (a + final_fraction (1 - a)), a = (cos(pi i/(n-1)) + 1)/2, over the n = N - w steps i = 0, 1, ...
// WSD: the peak, but over the last n = int(N * wsd_decay_steps_fraction) steps a falls as the cosine above or as a = 1 - i/(n-1).
double LearningRate(const ScheduleConfig& config, int64_t step);

}  // namespace fathom

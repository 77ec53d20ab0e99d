#include "fathom/base/pulse.h"

#include <fmt/core.h>

namespace fathom {

void Pulse::Waiting(bool waits) {
  if (main_ != nullptr) return Note(&Pulse::waiting_, int32_t{waits});
  Pulse* pulse = OfProcess();
  if (pulse == nullptr) return;
  pulse->others_waiting_.fetch_add(waits ? 1 : -1, std::memory_order_relaxed);
  pulse->Block();
}

PulseReading Pulse::Read() const {
  const auto of = [](const auto& x) { return x.load(std::memory_order_relaxed); };
  int64_t beats = of(beats_) + of(blocks_);
  for (const Worker& worker : workers_) beats += of(worker.beats);
  const bool waits = of(waiting_) != 0 || (of(beside_) != 0 && of(others_waiting_) > 0);
  return {beats, of(step_), of(layer_), of(activity_), int32_t{waits}, int32_t{of(outside_) > 0}};
}

std::string Describe(const PulseReading& r) {
  static constexpr std::array kNames = {"starting",         "reading data", "forward", "backward",
                                        "updating weights", "saving",       "ending",  "failing"};
  std::string text = r.step < 0 ? "" : fmt::format("step {}, ", r.step);
  if (r.layer >= 0 && (r.activity == Activity::kForward || r.activity == Activity::kBackward)) text += fmt::format("layer {}, ", r.layer);
  text += kNames.at(static_cast<size_t>(r.activity));
  if (r.waiting != 0) return text + ", waiting for other ranks";
  return r.outside != 0 ? text + ", waiting for a disk or for input" : text;
}

}  // namespace fathom

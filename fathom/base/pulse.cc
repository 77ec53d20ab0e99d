#include "fathom/base/pulse.h"

#include <fmt/core.h>

#include <array>

namespace fathom {

std::string Describe(const PulseReading& r) {
  static constexpr std::array kNames = {"starting",         "reading data", "forward", "backward",
                                        "updating weights", "saving",       "ending",  "failing"};
  std::string text = r.step < 0 ? "" : fmt::format("step {}, ", r.step);
  if (r.layer >= 0 && (r.activity == Activity::kForward || r.activity == Activity::kBackward)) text += fmt::format("layer {}, ", r.layer);
  text += kNames.at(static_cast<size_t>(r.activity));
  return r.waiting != 0 ? text + ", waiting for other ranks" : text;
}

}  // namespace fathom

// What a rank has sent along each axis of its mesh.
#pragma once

#include <array>

#include "fathom/parallel/mesh.h"

namespace fathom {

using AxisTraffic = std::array<Traffic, kAxes.size()>;  // in the order of kAxes

inline AxisTraffic TrafficByAxis(const Mesh& mesh) {
  AxisTraffic traffic;
  for (const Axis axis : kAxes) traffic[static_cast<size_t>(axis)] = mesh.comm(axis).traffic();
  return traffic;
}

// a + f b of what was sent; seconds are a's.
inline AxisTraffic AddTraffic(AxisTraffic a, const AxisTraffic& b, int64_t f) {
  for (size_t i = 0; i < a.size(); ++i) {
    for (int64_t Traffic::*count : {&Traffic::bytes_sent, &Traffic::messages, &Traffic::far_bytes, &Traffic::far_messages})
      a[i].*count += f * (b[i].*count);
  }
  return a;
}

}  // namespace fathom

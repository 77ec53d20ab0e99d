// The obvious rotary embedding of one head, for real and complex scalars. cos and sin are the row of its position.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/kernels/attention/rope.h"

namespace fathom {

template <class T>
std::vector<T> RopeRef(const std::vector<T>& x, const std::vector<double>& cos, const std::vector<double>& sin, RopePairs pairs,
                       RopeDirection direction) {
  const size_t half = x.size() / 2;
  std::vector<T> y(x.size());
  for (size_t i = 0; i < half; ++i) {
    const size_t a = pairs == RopePairs::kInterleaved ? 2 * i : i;
    const size_t b = pairs == RopePairs::kInterleaved ? 2 * i + 1 : i + half;
    const double s = direction == RopeDirection::kForward ? sin[i] : -sin[i];
    y[a] = x[a] * cos[i] - x[b] * s;
    y[b] = x[b] * cos[i] + x[a] * s;
  }
  return y;
}

}  // namespace fathom

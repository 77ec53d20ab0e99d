// The obvious top-k: a stable sort.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace fathom {

inline std::vector<int32_t> TopKRef(const std::vector<float>& scores, int64_t k) {
  std::vector<int32_t> order;
  for (int32_t i = 0; i < std::ssize(scores); ++i) order.push_back(i);
  const auto value = [&](int32_t i) {
    const float v = scores[static_cast<size_t>(i)];
    return std::isnan(v) ? -std::numeric_limits<float>::infinity() : v;
  };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return value(a) > value(b); });
  order.resize(static_cast<size_t>(k), -1);
  return order;
}

}  // namespace fathom

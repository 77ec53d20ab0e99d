// What value_checks computes, said plainly.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

#include "fathom/kernels/elementwise/value_checks.h"

namespace fathom {

template <class T>
ValueCounts CountValuesRef(std::span<const T> x) {
  ValueCounts c;
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = ToFloat(x[i]);
    c.nan += std::isnan(v) ? 1 : 0;
    c.infinite += std::isinf(v) ? 1 : 0;
    c.zero += v == 0 ? 1 : 0;
    c.negative += std::isfinite(v) && v < 0 ? 1 : 0;
    c.not_bf16 += std::isfinite(v) && static_cast<double>(RoundToBF16(ToFloat(x[i]))) != v ? 1 : 0;
    if (!std::isfinite(v) && c.first_non_finite < 0) c.first_non_finite = static_cast<int64_t>(i);
  }
  return c;
}

template <class T>
Difference CompareValuesRef(std::span<const T> a, std::span<const T> b) {
  Difference d;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    if (std::isfinite(x) && std::isfinite(y)) {
      d += {std::fabs(x - y), x * y, x * x, y * y, 0};
    } else if (!(x == y || (std::isnan(x) && std::isnan(y)))) {
      ++d.non_finite;
    }
  }
  return d;
}

}  // namespace fathom

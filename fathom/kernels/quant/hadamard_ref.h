// The matrix product that HadamardRotate is.
#pragma once

#include <bit>
#include <cmath>
#include <vector>

namespace fathom {

// H_ij = (-1)^(number of ones in i & j).
inline std::vector<double> HadamardRotateRef(const std::vector<double>& x, size_t d) {
  std::vector<double> y(x.size());
  for (size_t row = 0; row < x.size(); row += d) {
    for (size_t i = 0; i < d; ++i) {
      for (size_t j = 0; j < d; ++j) y[row + i] += (std::popcount(i & j) % 2 == 0 ? 1 : -1) * x[row + j];
      y[row + i] /= std::sqrt(static_cast<double>(d));
    }
  }
  return y;
}

}  // namespace fathom

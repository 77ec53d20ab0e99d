// The obvious root mean square norm, for real and complex scalars.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace fathom {

template <class T>
std::vector<T> RmsNormForwardRef(const std::vector<T>& x, const std::vector<T>& w, double eps) {
  const size_t d = w.size();
  std::vector<T> y(x.size());
  for (size_t row = 0; row < x.size(); row += d) {
    T squares = 0;
    for (size_t i = 0; i < d; ++i) squares += x[row + i] * x[row + i];
    using std::sqrt;
    const T rstd = 1.0 / sqrt(squares / static_cast<double>(d) + eps);
    for (size_t i = 0; i < d; ++i) y[row + i] = x[row + i] * rstd * w[i];
  }
  return y;
}

template <class T>
struct RmsNormGradient {
  std::vector<T> dx, dw;
};

template <class T>
RmsNormGradient<T> RmsNormBackwardRef(const std::vector<T>& dy, const std::vector<T>& x, const std::vector<T>& w, double eps) {
  const size_t d = w.size();
  RmsNormGradient<T> grad{std::vector<T>(x.size()), std::vector<T>(d)};
  for (size_t row = 0; row < x.size(); row += d) {
    T squares = 0, dot = 0;
    for (size_t i = 0; i < d; ++i) squares += x[row + i] * x[row + i];
    for (size_t i = 0; i < d; ++i) dot += dy[row + i] * w[i] * x[row + i];
    using std::sqrt;
    const T rstd = 1.0 / sqrt(squares / static_cast<double>(d) + eps);
    for (size_t i = 0; i < d; ++i) {
      grad.dx[row + i] = rstd * (dy[row + i] * w[i] - x[row + i] * rstd * rstd * dot / static_cast<double>(d));
      grad.dw[i] += dy[row + i] * x[row + i] * rstd;
    }
  }
  return grad;
}

}  // namespace fathom

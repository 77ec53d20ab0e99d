// The obvious layer norm, for real and complex scalars.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace fathom {

template <class T>
struct RowMoments {
  T mean, rstd;
};

template <class T>
RowMoments<T> RowMomentsRef(const T* x, size_t d, double eps) {
  T mean = 0, variance = 0;
  for (size_t i = 0; i < d; ++i) mean += x[i] / static_cast<double>(d);
  for (size_t i = 0; i < d; ++i) variance += (x[i] - mean) * (x[i] - mean) / static_cast<double>(d);
  using std::sqrt;
  return {mean, 1.0 / sqrt(variance + eps)};
}

template <class T>
std::vector<T> LayerNormForwardRef(const std::vector<T>& x, const std::vector<T>& w, const std::vector<T>& b, double eps) {
  const size_t d = w.size();
  std::vector<T> y(x.size());
  for (size_t row = 0; row < x.size(); row += d) {
    const RowMoments<T> m = RowMomentsRef(&x[row], d, eps);
    for (size_t i = 0; i < d; ++i) y[row + i] = (x[row + i] - m.mean) * m.rstd * w[i] + b[i];
  }
  return y;
}

template <class T>
struct LayerNormGradient {
  std::vector<T> dx, dw, db;
};

template <class T>
LayerNormGradient<T> LayerNormBackwardRef(const std::vector<T>& dy, const std::vector<T>& x, const std::vector<T>& w, double eps) {
  const size_t d = w.size();
  LayerNormGradient<T> grad{std::vector<T>(x.size()), std::vector<T>(d), std::vector<T>(d)};
  for (size_t row = 0; row < x.size(); row += d) {
    const RowMoments<T> m = RowMomentsRef(&x[row], d, eps);
    T g_mean = 0, gn_mean = 0;
    for (size_t i = 0; i < d; ++i) {
      const T n = (x[row + i] - m.mean) * m.rstd, g = dy[row + i] * w[i];
      g_mean += g / static_cast<double>(d);
      gn_mean += g * n / static_cast<double>(d);
    }
    for (size_t i = 0; i < d; ++i) {
      const T n = (x[row + i] - m.mean) * m.rstd;
      grad.dx[row + i] = m.rstd * (dy[row + i] * w[i] - g_mean - n * gn_mean);
      grad.dw[i] += dy[row + i] * n;
      grad.db[i] += dy[row + i];
    }
  }
  return grad;
}

}  // namespace fathom

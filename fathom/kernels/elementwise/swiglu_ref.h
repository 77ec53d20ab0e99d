// The obvious gated unit, for real and complex scalars.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace fathom {

template <class T>
T SigmoidRef(T x) {
  using std::exp;
  return 1.0 / (1.0 + exp(-x));
}

// row_weight has one entry per row.
template <class T>
std::vector<T> SwigluForwardRef(const std::vector<T>& gate, const std::vector<T>& up, const std::vector<T>& row_weight) {
  const size_t f = gate.size() / row_weight.size();
  std::vector<T> y(gate.size());
  for (size_t i = 0; i < y.size(); ++i) y[i] = gate[i] * SigmoidRef(gate[i]) * up[i] * row_weight[i / f];
  return y;
}

template <class T>
struct SwigluGradient {
  std::vector<T> dgate, dup, d_row_weight;
};

template <class T>
SwigluGradient<T> SwigluBackwardRef(const std::vector<T>& dy, const std::vector<T>& gate, const std::vector<T>& up,
                                    const std::vector<T>& row_weight) {
  const size_t f = gate.size() / row_weight.size();
  SwigluGradient<T> grad{std::vector<T>(gate.size()), std::vector<T>(gate.size()), std::vector<T>(row_weight.size())};
  for (size_t i = 0; i < gate.size(); ++i) {
    const T s = SigmoidRef(gate[i]), silu = gate[i] * s, w = row_weight[i / f];
    grad.dup[i] = dy[i] * w * silu;
    grad.dgate[i] = dy[i] * w * up[i] * (s + gate[i] * s * (1.0 - s));
    grad.d_row_weight[i / f] += dy[i] * silu * up[i];
  }
  return grad;
}

}  // namespace fathom

// The obvious AdamW and SGD on one element.
#pragma once

#include <cmath>
#include <complex>

#include "fathom/kernels/elementwise/adamw.h"

namespace fathom {

template <class T>
struct AdamWElement {
  T w, m, v;
};

template <class T>
AdamWElement<T> AdamWRef(const AdamWStep& s, AdamWElement<T> e, T g) {
  const double b1 = s.b1, b2 = s.b2, t = static_cast<double>(s.t);
  g *= static_cast<double>(s.grad_scale);
  e.m = b1 * e.m + (1 - b1) * g;
  e.v = b2 * e.v + (1 - b2) * g * g;
  const T m_hat = s.nesterov ? b1 * e.m / (1 - std::pow(b1, t + 1)) + (1 - b1) * g / (1 - std::pow(b1, t)) : e.m / (1 - std::pow(b1, t));
  const T v_hat = e.v / (1 - std::pow(b2, t));
  using std::sqrt;
  e.w -= static_cast<double>(s.learning_rate) *
         (m_hat / (sqrt(v_hat + static_cast<double>(s.eps_root)) + static_cast<double>(s.eps)) + static_cast<double>(s.weight_decay) * e.w);
  return e;
}

template <class T>
T SgdRef(double learning_rate, double weight_decay, double grad_scale, T w, T g) {
  return w - learning_rate * (grad_scale * g + weight_decay * w);
}

}  // namespace fathom

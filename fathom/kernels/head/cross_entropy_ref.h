// The obvious cross entropy with z-loss, for real and complex scalars.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

namespace fathom {

template <class T>
T LogSumExpRef(const T* x, size_t n) {
  double largest = std::real(x[0]);
  for (size_t i = 1; i < n; ++i) largest = std::max(largest, std::real(x[i]));
  T sum = 0;
  using std::exp, std::log;
  for (size_t i = 0; i < n; ++i) sum += exp(x[i] - largest);
  return largest + log(sum);
}

// lse - logit[target] of each token.
template <class T>
std::vector<T> TokenLossRef(const std::vector<T>& logits, const std::vector<int32_t>& targets) {
  const size_t n = logits.size() / targets.size();
  std::vector<T> nll;
  for (size_t t = 0; t < targets.size(); ++t)
    nll.push_back(LogSumExpRef(&logits[t * n], n) - logits[t * n + static_cast<size_t>(targets[t])]);
  return nll;
}

// sum of weight (nll + z lse^2).
template <class T>
T CrossEntropyRef(const std::vector<T>& logits, const std::vector<int32_t>& targets, const std::vector<double>& weight, double z_loss) {
  const size_t n = logits.size() / targets.size();
  const std::vector<T> nll = TokenLossRef(logits, targets);
  T sum = 0;
  for (size_t t = 0; t < targets.size(); ++t) {
    const T lse = LogSumExpRef(&logits[t * n], n);
    sum += weight[t] * (nll[t] + z_loss * lse * lse);
  }
  return sum;
}

// scale times its gradient: scale weight ((1 + 2 z lse) softmax - onehot).
template <class T>
std::vector<T> CrossEntropyBackwardRef(const std::vector<T>& logits, const std::vector<int32_t>& targets, const std::vector<double>& weight,
                                       double z_loss, double scale) {
  const size_t n = logits.size() / targets.size();
  std::vector<T> d(logits.size());
  for (size_t t = 0; t < targets.size(); ++t) {
    const T lse = LogSumExpRef(&logits[t * n], n);
    using std::exp;
    for (size_t i = 0; i < n; ++i) {
      const double one = static_cast<size_t>(targets[t]) == i ? 1.0 : 0.0;
      d[t * n + i] = scale * weight[t] * ((1.0 + 2.0 * z_loss * lse) * exp(logits[t * n + i] - lse) - one);
    }
  }
  return d;
}

}  // namespace fathom

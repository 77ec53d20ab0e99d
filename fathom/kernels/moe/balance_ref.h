// The obvious balance loss of one sequence, for real and complex scalars.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "fathom/kernels/moe/balance.h"

namespace fathom {

template <class T>
std::vector<T> BalanceProbabilitiesRef(BalanceForm form, const std::vector<T>& scores) {
  using std::exp;
  std::vector<T> p = scores;
  T sum = 0;
  for (T& v : p) {
    if (form == BalanceForm::kSoftmaxOfScores) v = exp(v);
    sum += v;
  }
  for (T& v : p) v /= sum;
  return p;
}

inline std::vector<double> BalanceFrequenciesRef(int64_t experts, const std::vector<int32_t>& ids) {
  std::vector<double> f(static_cast<size_t>(experts));
  for (const int32_t id : ids) {
    if (id >= 0) f[static_cast<size_t>(id)] += static_cast<double>(experts) / static_cast<double>(std::ssize(ids));  // K n = ids
  }
  return f;
}

// scores [n, experts], ids [n * K].
template <class T>
T BalanceLossRef(BalanceForm form, int64_t experts, const std::vector<T>& scores, const std::vector<int32_t>& ids) {
  const std::vector<double> f = BalanceFrequenciesRef(experts, ids);
  const auto width = static_cast<size_t>(experts);
  T loss = 0;
  for (size_t row = 0; row < scores.size(); row += width) {
    const auto p =
        BalanceProbabilitiesRef<T>(form, {scores.begin() + static_cast<int64_t>(row), scores.begin() + static_cast<int64_t>(row + width)});
    for (size_t e = 0; e < width; ++e) loss += f[e] * p[e] / static_cast<double>(scores.size() / width);
  }
  return loss;
}

template <class T>
std::vector<T> BalanceGradientRef(BalanceForm form, int64_t experts, const std::vector<T>& scores, const std::vector<int32_t>& ids) {
  const std::vector<double> f = BalanceFrequenciesRef(experts, ids);
  const auto width = static_cast<size_t>(experts);
  const double tokens = static_cast<double>(scores.size() / width);
  std::vector<T> d(scores.size());
  for (size_t row = 0; row < scores.size(); row += width) {
    const auto p =
        BalanceProbabilitiesRef<T>(form, {scores.begin() + static_cast<int64_t>(row), scores.begin() + static_cast<int64_t>(row + width)});
    T sum = 0, dot = 0;
    for (size_t e = 0; e < width; ++e) {
      sum += scores[row + e];
      dot += f[e] * p[e];
    }
    for (size_t e = 0; e < width; ++e) d[row + e] = (f[e] - dot) / tokens * (form == BalanceForm::kSoftmaxOfScores ? p[e] : 1.0 / sum);
  }
  return d;
}

}  // namespace fathom

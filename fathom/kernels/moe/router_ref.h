// The obvious router, for real and complex scalars. The choice looks at real parts only.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <limits>
#include <vector>

#include "fathom/kernels/moe/router.h"

namespace fathom {

template <class T>
std::vector<T> RouterScoresRef(const RouterShape& shape, const std::vector<T>& logits) {
  using std::exp;
  std::vector<T> scores(logits.size());
  if (shape.sigmoid) {
    for (size_t e = 0; e < logits.size(); ++e) scores[e] = 1.0 / (1.0 + exp(-logits[e]));
    return scores;
  }
  T sum = 0;
  for (const T& l : logits) sum += exp(l);
  for (size_t e = 0; e < logits.size(); ++e) scores[e] = exp(logits[e]) / sum;
  return scores;
}

// Indices of the k largest, by falling value, ties to the lower index.
inline std::vector<int32_t> LargestRef(const std::vector<double>& values, int64_t k) {
  std::vector<int32_t> order;
  for (int32_t i = 0; i < std::ssize(values); ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(k));
  return order;
}

// The experts of one token from its scores.
inline std::vector<int32_t> RouterChoiceRef(const RouterShape& shape, std::vector<double> choice, const std::vector<double>& bias) {
  for (size_t e = 0; e < bias.size(); ++e) choice[e] += bias[e];
  const int64_t size = shape.experts / shape.groups;
  std::vector<double> group_scores;
  for (int64_t g = 0; g < shape.groups; ++g) {
    std::vector<double> members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(members.rbegin(), members.rend());
    group_scores.push_back(shape.group_top2 ? members[0] + members[1] : members[0]);
  }
  const auto kept = LargestRef(group_scores, shape.kept_groups);
  for (int32_t g = 0; g < shape.groups; ++g) {
    if (std::find(kept.begin(), kept.end(), g) != kept.end()) continue;
    std::fill(choice.begin() + g * size, choice.begin() + (g + 1) * size, -std::numeric_limits<double>::infinity());
  }
  return LargestRef(choice, shape.chosen);
}

template <class T>
std::vector<T> RouterWeightsRef(const RouterShape& shape, const std::vector<T>& scores, const std::vector<int32_t>& ids) {
  T sum = 1e-20;
  for (const int32_t id : ids) sum += scores[static_cast<size_t>(id)];
  std::vector<T> weights;
  for (const int32_t id : ids) {
    const T s = scores[static_cast<size_t>(id)];
    weights.push_back((shape.normalize ? s / sum : s) * static_cast<double>(shape.scaling));
  }
  return weights;
}

// Gradient on the logits of one token from those on its weights and on its scores.
template <class T>
std::vector<T> RouterBackwardRef(const RouterShape& shape, const std::vector<T>& scores, const std::vector<int32_t>& ids,
                                 const std::vector<T>& dweights, std::vector<T> d_scores) {
  T sum = 1e-20, dot = 0;
  for (size_t k = 0; k < ids.size(); ++k) {
    sum += scores[static_cast<size_t>(ids[k])];
    dot += scores[static_cast<size_t>(ids[k])] * dweights[k];
  }
  for (size_t k = 0; k < ids.size(); ++k) {
    d_scores[static_cast<size_t>(ids[k])] +=
        static_cast<double>(shape.scaling) * (shape.normalize ? dweights[k] / sum - dot / (sum * sum) : dweights[k]);
  }
  T all = 0;
  for (size_t e = 0; e < scores.size(); ++e) all += scores[e] * d_scores[e];
  for (size_t e = 0; e < scores.size(); ++e)
    d_scores[e] = shape.sigmoid ? d_scores[e] * scores[e] * (1.0 - scores[e]) : scores[e] * (d_scores[e] - all);
  return d_scores;
}

}  // namespace fathom

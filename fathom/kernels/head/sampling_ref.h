// The obvious distributions, in double, from a full sort.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "fathom/kernels/elementwise/topk_ref.h"
#include "fathom/kernels/head/sampling.h"

namespace fathom {

inline std::vector<double> SoftmaxRef(const std::vector<double>& x) {
  const double largest = *std::max_element(x.begin(), x.end());
  std::vector<double> p;
  double sum = 0;
  for (const double v : x) sum += std::exp(v - largest);
  for (const double v : x) p.push_back(std::exp(v - largest) / sum);
  return p;
}

inline std::vector<double> SamplingDistributionRef(const SamplingRule& rule, const std::vector<float>& logits) {
  const auto all = static_cast<int64_t>(logits.size());
  const bool top_k = rule.strategy == SamplingStrategy::kTopK || rule.strategy == SamplingStrategy::kComposite;
  const bool top_p = rule.strategy == SamplingStrategy::kNucleus || rule.strategy == SamplingStrategy::kComposite;
  std::vector<int32_t> ids = TopKRef(logits, rule.strategy == SamplingStrategy::kGreedy ? 1 : top_k ? std::min(rule.top_k, all) : all);
  const auto values = [&] {
    std::vector<double> v;
    for (const int32_t id : ids) v.push_back(logits[static_cast<size_t>(id)]);
    return v;
  };
  if (top_p) {
    const std::vector<double> sorted = values(), p = SoftmaxRef(sorted);
    size_t kept = 0;
    for (double sum = 0; kept < p.size(); ++kept) {
      sum += p[kept];
      if (sum >= rule.top_p) break;
    }
    while (kept + 1 < sorted.size() && sorted[kept + 1] == sorted[kept]) ++kept;
    ids.resize(std::min(kept + 1, ids.size()));
  }
  std::vector<double> tempered = values(), probabilities(logits.size());
  for (double& v : tempered) v /= rule.strategy == SamplingStrategy::kComposite ? std::max(rule.temperature, 1e-6) : rule.temperature;
  const std::vector<double> p = SoftmaxRef(tempered);
  for (size_t i = 0; i < ids.size(); ++i) probabilities[static_cast<size_t>(ids[i])] = p[i];
  return probabilities;
}

}  // namespace fathom

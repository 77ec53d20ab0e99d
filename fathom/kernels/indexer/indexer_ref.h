// The reference of the lightning indexer, right for double and std::complex<double> (branches on real parts only).
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "fathom/kernels/attention/mla_attention_ref.h"
#include "fathom/kernels/indexer/indexer.h"

namespace fathom::ref {

template <class T>
struct IndexerInputs {
  std::vector<T> q, k, weights;  // as in indexer.h
};

template <class T>
T IndexerScore(const IndexerShape& s, const IndexerInputs<T>& in, int64_t query, int64_t key) {
  T score = T(0);
  for (int64_t h = 0; h < s.heads; ++h) {
    T dot = T(0);
    for (int64_t i = 0; i < s.head_dim; ++i) {
      dot += in.q[static_cast<size_t>((query * s.heads + h) * s.head_dim + i)] * in.k[static_cast<size_t>(key * s.head_dim + i)];
    }
    if (RealPart(dot) > 0) score += in.weights[static_cast<size_t>(query * s.heads + h)] * dot;
  }
  return score;
}

// The k best of the listed keys in rising order of key; equal scores to the lower index.
inline std::vector<int32_t> BestKeys(const std::vector<double>& scores, std::span<const int32_t> keys, int64_t k) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] > scores[b]; });
  order.resize(std::min(order.size(), static_cast<size_t>(k)));
  std::vector<int32_t> best;
  for (const size_t i : order) best.push_back(keys[i]);
  std::sort(best.begin(), best.end());
  return best;
}

}  // namespace fathom::ref

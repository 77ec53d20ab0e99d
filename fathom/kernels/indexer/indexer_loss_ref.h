// The reference of indexer_loss, right for double and std::complex<double> in the indexer's inputs (branches on real parts only).
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "fathom/kernels/attention/mla_attention_ref.h"
#include "fathom/kernels/indexer/indexer_loss.h"
#include "fathom/kernels/indexer/indexer_ref.h"

namespace fathom::ref {

// The keys of each query, from [T*k] rows ended by negative entries.
inline std::vector<std::vector<int32_t>> ChosenKeys(std::span<const int32_t> chosen, int64_t k) {
  std::vector<std::vector<int32_t>> keys;
  for (size_t begin = 0; begin < chosen.size(); begin += static_cast<size_t>(k)) {
    keys.emplace_back();
    for (const int32_t row : chosen.subspan(begin, static_cast<size_t>(k))) {
      if (row >= 0) keys.back().push_back(row);
    }
  }
  return keys;
}

// Probabilities of the main attention, summed over heads, over the listed keys; sums to one.
inline std::vector<double> IndexerTargets(const MlaShape& s, const MlaInputs<double>& main, int64_t query, std::span<const int32_t> keys) {
  std::vector<double> t(keys.size());
  for (int64_t head = 0; head < s.heads; ++head) {
    const std::vector<double> p = MlaProbabilities(s, main, query, keys, head);
    for (size_t j = 0; j < t.size(); ++j) t[j] += p[j];
  }
  double sum = 0;
  for (const double x : t) sum += x;
  for (double& x : t) x /= sum + 1e-8;
  return t;
}

// keys: what each query sees or has chosen. -> kl per query, 0 without keys.
template <class T>
std::vector<T> IndexerKl(const MlaShape& main_shape, const MlaInputs<double>& main, const IndexerShape& shape, const IndexerInputs<T>& in,
                         const std::vector<std::vector<int32_t>>& keys) {
  std::vector<T> kl(keys.size());
  for (size_t t = 0; t < keys.size(); ++t) {
    if (keys[t].empty()) continue;
    const std::vector<double> target = IndexerTargets(main_shape, main, static_cast<int64_t>(t), keys[t]);
    std::vector<T> p;
    for (const int32_t key : keys[t]) p.push_back(IndexerScore(shape, in, static_cast<int64_t>(t), key));
    Softmax(p);
    for (size_t j = 0; j < p.size(); ++j) kl[t] += T(target[j]) * (T(std::log(target[j] + 1e-8)) - std::log(p[j] + T(1e-8)));
  }
  return kl;
}

}  // namespace fathom::ref

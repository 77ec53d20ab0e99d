// The reference of mla_decode, right for double and std::complex<double>.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/kernels/attention/mla_attention_ref.h"
#include "fathom/kernels/attention/mla_decode.h"

namespace fathom::ref {

// rows[m]: the rows of the cache that query m attends to. -> o_latent [M,H*R].
template <class T>
std::vector<T> MlaDecode(const MlaDecodeShape& s, const std::vector<T>& q_latent, const std::vector<T>& q_rope, const std::vector<T>& cache,
                         const std::vector<std::vector<int32_t>>& rows) {
  const int64_t width = s.latent_dim + s.rope_dim;
  std::vector<T> o(q_latent.size());
  for (int64_t r = 0; r < std::ssize(rows) * s.heads; ++r) {
    const std::vector<int32_t>& keys = rows[static_cast<size_t>(r / s.heads)];
    if (keys.empty()) continue;
    std::vector<T> p;
    for (const int32_t key : keys) {
      const T* k = cache.data() + key * width;
      T sum = T(0);
      for (int64_t i = 0; i < s.latent_dim; ++i) sum += q_latent[static_cast<size_t>(r * s.latent_dim + i)] * k[i];
      for (int64_t i = 0; i < s.rope_dim; ++i) sum += q_rope[static_cast<size_t>(r * s.rope_dim + i)] * k[s.latent_dim + i];
      p.push_back(sum * T(s.scale));
    }
    Softmax(p);
    for (size_t j = 0; j < p.size(); ++j) {
      for (int64_t i = 0; i < s.latent_dim; ++i)
        o[static_cast<size_t>(r * s.latent_dim + i)] += p[j] * cache[static_cast<size_t>(keys[j] * width + i)];
    }
  }
  return o;
}

}  // namespace fathom::ref

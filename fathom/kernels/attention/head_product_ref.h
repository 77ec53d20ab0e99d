// The reference of head_product, right for double and std::complex<double>.
#pragma once

#include <cstdint>
#include <vector>

#include "fathom/kernels/attention/head_product.h"

namespace fathom::ref {

// w [H*C,K] row-major; as PerHeadMatMul.
template <class T>
std::vector<T> PerHeadMatMul(HeadProduct kind, int64_t heads, const std::vector<T>& w, int64_t columns, int64_t first, int64_t rows,
                             const std::vector<T>& x) {
  const bool to_latent = kind == HeadProduct::kToLatent;
  const int64_t in = to_latent ? rows : columns, out = to_latent ? columns : rows, per_head = std::ssize(w) / columns / heads;
  std::vector<T> y(x.size() / static_cast<size_t>(in) * static_cast<size_t>(out));
  for (int64_t r = 0; r < std::ssize(x) / in; ++r) {
    for (int64_t a = 0; a < rows; ++a) {
      const T* row = w.data() + (r % heads * per_head + first + a) * columns;
      for (int64_t j = 0; j < columns; ++j) {
        y[static_cast<size_t>(r * out + (to_latent ? j : a))] += x[static_cast<size_t>(r * in + (to_latent ? a : j))] * row[j];
      }
    }
  }
  return y;
}

}  // namespace fathom::ref

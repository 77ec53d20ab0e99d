// The obvious matrix products, for real and complex scalars. All add to c: start from zeros for an overwritten result.
#pragma once

#include <cstdint>
#include <vector>

namespace fathom {

// c [m,n] += a [m,k] b [n,k]^T.
template <class T>
void MatMulNTRef(int64_t m, int64_t n, int64_t k, const T* a, const T* b, T* c) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) c[i * n + j] += a[i * k + l] * b[j * k + l];
    }
  }
}

// c [m,k] += a [m,n] b [n,k].
template <class T>
void MatMulNNRef(int64_t m, int64_t n, int64_t k, const T* a, const T* b, T* c) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) c[i * k + l] += a[i * n + j] * b[j * k + l];
    }
  }
}

// c [n,k] += a [m,n]^T b [m,k].
template <class T>
void MatMulTNRef(int64_t m, int64_t n, int64_t k, const T* a, const T* b, T* c) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) c[j * k + l] += a[i * n + j] * b[i * k + l];
    }
  }
}

}  // namespace fathom

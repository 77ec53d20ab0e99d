// The obvious product of few rows, for real and complex scalars: y [m,n] = x [m,k] w [n,k]^T.
#pragma once

#include <vector>

#include "fathom/kernels/gemm/gemm_ref.h"

namespace fathom {

template <class T>
std::vector<T> FewRowsRef(int64_t m, int64_t n, int64_t k, const std::vector<T>& x, const std::vector<T>& w) {
  std::vector<T> y(static_cast<size_t>(m * n));
  MatMulNTRef(m, n, k, x.data(), w.data(), y.data());
  return y;
}

}  // namespace fathom

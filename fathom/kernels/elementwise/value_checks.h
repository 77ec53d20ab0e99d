// What the values of a stored tensor look like, and how far two tensors are apart: for checks of checkpoints.
#pragma once

#include <cstdint>

#include "fathom/tensor/view.h"

namespace fathom {

// Is any E4M3 code of x [any shape, contiguous] a NaN (S.1111.111)?
bool HasNaNCode(ConstView x);

struct ValueCounts {
  int64_t nan = 0, infinite = 0, zero = 0, negative = 0;
  int64_t not_bf16 = 0;           // finite, but changed by rounding to bf16
  int64_t first_non_finite = -1;  // row-major index; -1: none
  friend bool operator==(const ValueCounts&, const ValueCounts&) = default;
};
// x contiguous, F32|BF16|F16|F8_E4M3|F8_E8M0, at any address. One element at a time: for small tensors and for those that have a fault.
ValueCounts CountValues(ConstView x);

struct Difference {
  double max_abs = 0;  // largest |a - b| where both are finite
  double dot = 0, a_squares = 0, b_squares = 0;
  int64_t non_finite = 0;  // elements where a or b is not finite and they are not the same value; not in the sums
  Difference& operator+=(const Difference& other);
  double Cosine() const;  // 1 for two zero tensors, 0 for one
};
// Sums in double, in a fixed order. a, b [n] F32.
Difference CompareValues(const float* a, const float* b, int64_t n);

}  // namespace fathom

// The values of stored parameters, whatever format holds them, compared under transformations: for finding out what happened to one.
#pragma once

#include <cstdint>

#include "fathom/base/function_ref.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

// A matrix, or a vector as a matrix of one column. Keeps the weight's memory alive.
class ParameterValues {
 public:
  explicit ParameterValues(Weight weight);
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  DType dtype() const { return weight_.value.dtype(); }
  const Weight& weight() const { return weight_; }
  // The part [row, row + n) x [column, column + m) as F32 [n,m], FP8 times its scales: overwrites `to`.
  void Read(int64_t row, int64_t n, int64_t column, int64_t m, float* to) const;
  // Of the block that holds an element; 1 unless the weight is FP8.
  float Scale(int64_t row, int64_t column) const;

 private:
  Weight weight_;
  int64_t rows_, columns_;
};

// What storing a value in a narrower dtype does to it. kFp8OfBF16: both are rounded from one value, a to BF16, b to FP8.
enum class Narrowing { kNone, kBF16, kF16, kFp8, kFp8OfBF16 };
// What b's dtype would do to a's values; kNone if they have the same.
Narrowing NarrowingOf(const ParameterValues& a, const ParameterValues& b);

// The same bytes in the same format (values and scales).
bool SameBytes(const ParameterValues& a, const ParameterValues& b);
// FP8 with the same codes, whatever the scales.
bool SameCodes(const ParameterValues& a, const ParameterValues& b);
// Every value of b is that of a in the same place, narrowed (to the nearest FP8 code of b's scale). Shapes must be equal; the first
// difference ends it. Of NaN nothing is the same.
bool IsNarrowed(const ParameterValues& a, const ParameterValues& b, Narrowing narrowing);
// Row i of b is row source(i) of a, up to NarrowingOf(a, b).
bool HasRowsOf(const ParameterValues& a, const ParameterValues& b, FunctionRef<int64_t(int64_t)> source);
// The rows of b are those of a in some order.
bool HasPermutedRowsOf(const ParameterValues& a, const ParameterValues& b);
// b is a transposed, up to NarrowingOf(a, b).
bool IsTransposed(const ParameterValues& a, const ParameterValues& b);
bool IsZero(const ParameterValues& b);

}  // namespace fathom

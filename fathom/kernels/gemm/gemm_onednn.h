// One block of a matrix product on the calling thread: what gemm asks of oneDNN.
#pragma once

#include <cstdint>

#include "fathom/tensor/dtype.h"

namespace fathom {

// A row-major factor; transposed: it lies as [columns, rows].
struct Factor {
  const void* data;
  int64_t stride;  // elements between rows as it lies
  bool transposed;
};

// c [m,n] = a b, or c + a b.
struct BlockMultiply {
  int64_t m, n, k;
  Factor a, b;
  bool add;
  DType c_dtype;  // F32 or BF16
  void* c;
  int64_t c_stride;
};

// All F32.
void MultiplyF32(const BlockMultiply& p);

// a and b BF16, sums in F32. Each new combination of sizes and strides costs a compilation of some
// 0.2 ms; oneDNN keeps the last thousand for the whole process, each thread its handles to those that it ran.
void MultiplyBF16(const BlockMultiply& p);

// A product cut into parts of its columns has the same bits if each part but the last has a multiple of so many (and c stays a part of
// wider rows, or stays none): what oneDNN does with its rows' last vectors. Seen for AVX2 and AVX-512 by a test; not for AMX.
int64_t ColumnUnit();

// oneDNN must not split a sum over threads of its own: while this lives, products of this thread run on it alone.
class OneThread {
 public:
  OneThread();
  ~OneThread();
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

}  // namespace fathom

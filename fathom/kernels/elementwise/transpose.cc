#include "fathom/kernels/elementwise/transpose.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/elementwise/transpose.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

template <class T>
struct Matrix {
  T* data;
  int64_t stride;
  T* At(int64_t i, int64_t j) const { return data + i * stride + j; }
};

template <class T>
void TransposeScalar(Matrix<const T> x, Matrix<T> y, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) *y.At(j, i) = *x.At(i, j);
  }
}

#if HWY_TARGET != HWY_SCALAR
// An n x n tile of 16-byte rows: log2(n) rounds that interleave row i with row i + n/2.
template <class T, size_t n>
HWY_INLINE void TransposeTile(Matrix<const T> x, Matrix<T> y) {
  const hn::FixedTag<T, n> d;
  hn::Vec<decltype(d)> rows[n], mixed[n];
  for (size_t i = 0; i < n; ++i) rows[i] = hn::LoadU(d, x.At(static_cast<int64_t>(i), 0));
  for (size_t round = 1; round < n; round *= 2) {
    for (size_t i = 0; i < n / 2; ++i) {
      mixed[2 * i] = hn::InterleaveLower(d, rows[i], rows[i + n / 2]);
      mixed[2 * i + 1] = hn::InterleaveUpper(d, rows[i], rows[i + n / 2]);
    }
    for (size_t i = 0; i < n; ++i) rows[i] = mixed[i];
  }
  for (size_t i = 0; i < n; ++i) hn::StoreU(rows[i], d, y.At(static_cast<int64_t>(i), 0));
}
#endif

// A block that fits the first-level cache.
template <class T>
void TransposeBlock(Matrix<const T> x, Matrix<T> y, int64_t rows, int64_t columns) {
#if HWY_TARGET == HWY_SCALAR
  TransposeScalar(x, y, rows, columns);
#else
  constexpr int64_t n = 16 / sizeof(T);
  const int64_t whole_rows = rows / n * n, whole_columns = columns / n * n;
  for (int64_t j = 0; j < whole_columns; j += n) {
    for (int64_t i = 0; i < whole_rows; i += n) {
      TransposeTile<T, n>({x.At(i, j), x.stride}, {y.At(j, i), y.stride});
    }
  }
  TransposeScalar<T>({x.At(whole_rows, 0), x.stride}, {y.At(0, whole_rows), y.stride}, rows - whole_rows, columns);
  TransposeScalar<T>({x.At(0, whole_columns), x.stride}, {y.At(whole_columns, 0), y.stride}, whole_rows, columns - whole_columns);
#endif
}

template <class T>
void TransposeAll(const ConstView& x, const View& y) {
  constexpr int64_t kBlock = 64;
  const Matrix<const T> from = {reinterpret_cast<const T*>(x.raw()), x.stride()};
  const Matrix<T> to = {reinterpret_cast<T*>(y.raw()), y.stride()};
  for (int64_t j = 0; j < x.dim(1); j += kBlock) {
    for (int64_t i = 0; i < x.dim(0); i += kBlock) {
      TransposeBlock<T>({from.At(i, j), from.stride}, {to.At(j, i), to.stride}, std::min(kBlock, x.dim(0) - i),
                        std::min(kBlock, x.dim(1) - j));
    }
  }
}

void TransposeRange(const ConstView& x, const View& y) {
  switch (DTypeSize(x.dtype())) {
    case 1:
      return TransposeAll<uint8_t>(x, y);
    case 2:
      return TransposeAll<uint16_t>(x, y);
    case 4:
      return TransposeAll<uint32_t>(x, y);
    default:
      return TransposeAll<uint64_t>(x, y);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(TransposeRange);

void Transpose(ConstView x, View y) {
  FATHOM_CHECK(x.rank() == 2 && y.rank() == 2 && x.dim(0) == y.dim(1) && x.dim(1) == y.dim(0) && x.dtype() == y.dtype(), "{} to {}",
               x.shape().ToString(), y.shape().ToString());
  ParallelRanges(x.dim(1), std::max<int64_t>(64, RowGrain(x.dim(0))), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(TransposeRange)(x.Cols(begin, end), y.Rows(begin, end));
  });
}

}  // namespace fathom
#endif

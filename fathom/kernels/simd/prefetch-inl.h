// Asking for rows before they are needed. Once per SIMD target.
#if defined(FATHOM_KERNELS_PREFETCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_PREFETCH_INL_H_
#undef FATHOM_KERNELS_PREFETCH_INL_H_
#else
#define FATHOM_KERNELS_PREFETCH_INL_H_
#endif

#include <hwy/cache_control.h>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Columns [column, column + columns) of row i; nothing where there is no such row.
HWY_INLINE void PrefetchRow(const ConstView& v, int64_t i, int64_t column, int64_t columns) {
  if (i >= v.dim(0)) return;
  const int64_t size = DTypeSize(v.dtype());
  const std::byte* row = RowAt(v, i).data + column * size;
  for (int64_t b = 0; b < columns * size; b += 64) hwy::Prefetch(row + b);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif  // FATHOM_KERNELS_PREFETCH_INL_H_

#include "fathom/kernels/elementwise/rounding.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/elementwise/rounding.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/elementwise/rounding-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void ScaleSlice(float scale, const ConstView& x, const View& y, const Rounding& rounding, int64_t begin, int64_t end) {
  const InRow from = ElementsAt(x, begin);
  const OutRow to = ElementsAt(y, begin);
  const VF factor = hn::Set(DF(), scale);
  ForVectors(end - begin, [&](auto at) { StoreRounded(at, hn::Mul(factor, Load(at, from)), to, rounding, begin); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(ScaleSlice);

void ScaleInto(float scale, ConstView x, View y, const Rounding& rounding) {
  const int64_t n = y.NumElements();
  FATHOM_CHECK(IsVector(x, n) && IsVector(y, n), "x {}, y {}", x.shape().ToString(), y.shape().ToString());
  ParallelRanges(n, kElementGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ScaleSlice)(scale, x, y, rounding, begin, end);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

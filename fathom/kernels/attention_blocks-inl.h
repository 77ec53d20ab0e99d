// What the attention kernels share: blocks of keys and values packed into f32 scratch, the running softmax. Once per SIMD target.
#if defined(FATHOM_KERNELS_ATTENTION_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_ATTENTION_BLOCKS_INL_H_
#undef FATHOM_KERNELS_ATTENTION_BLOCKS_INL_H_
#else
#define FATHOM_KERNELS_ATTENTION_BLOCKS_INL_H_
#endif

#include <algorithm>
#include <limits>

#include "fathom/kernels/attention_plan.h"
#include "fathom/kernels/block_product-inl.h"
#include "fathom/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {


// Columns [column, column + n) of row i of a view.
inline InRow RowAt(const ConstView& v, int64_t i, int64_t column) {
  return {v.raw() + (i * v.stride() + column) * DTypeSize(v.dtype()), v.dtype()};
}
inline OutRow RowAt(const View& v, int64_t i, int64_t column) {
  return {v.raw() + (i * v.stride() + column) * DTypeSize(v.dtype()), v.dtype()};
}

HWY_INLINE void ToF32(const InRow& from, int64_t n, float* to) {
  ForVectors(n, [&](auto at) { Store(at, Load(at, from), to); });
}
HWY_INLINE void FromF32(const float* from, float factor, int64_t n, const OutRow& to) {
  const VF f = hn::Set(DF(), factor);
  ForVectors(n, [&](auto at) { Store(at, hn::Mul(f, Load(at, from)), to); });
}

// to [columns][kKeyBlock] = from [kKeyBlock][columns] transposed.
inline void TransposeKeys(ConstBlock from, int64_t columns, float* to) {
  for (int64_t j = 0; j < kKeyBlock; ++j) {
    for (int64_t i = 0; i < columns; ++i) to[i * kKeyBlock + j] = from.data[j * from.stride + i];
  }
}

// s[0..n) are raw scores of a block; turns them into e^(scale s - largest) and s[n..padded) into zeros. Returns the factor that
// brings what was summed before to the new largest score. n > 0, padded is whole vectors, scale > 0.
HWY_INLINE float SoftmaxStep(float* s, int64_t n, int64_t padded, float scale, RunningSoftmax& state) {
  const DF d;
  const int64_t lanes = LanesF();
  const VF scales = hn::Set(d, scale);
  std::fill(s + n, s + padded, -std::numeric_limits<float>::infinity());
  VF top = hn::Set(d, state.largest);
  for (int64_t i = 0; i < padded; i += lanes) top = hn::Max(top, hn::Mul(scales, LoadF(s + i)));
  const float largest = hn::GetLane(hn::MaxOfLanes(d, top));
  const VF shift = hn::Set(d, largest);
  VF sum = hn::Zero(d);
  for (int64_t i = 0; i < padded; i += lanes) {
    const VF p = ExpF(hn::MulSub(scales, LoadF(s + i), shift));
    StoreF(p, s + i);
    sum = hn::Add(sum, p);
  }
  const float factor = hn::GetLane(ExpF(hn::Set(d, state.largest - largest)));
  state.largest = largest;
  state.sum = state.sum * factor + static_cast<float>(LaneSum(sum));
  return factor;
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

// One multiply-add per 32-bit lane, of floats or of pairs of BF16. Included once per SIMD target, after foreach_target.h.
#if defined(FATHOM_KERNELS_MULTIPLY_ADD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_MULTIPLY_ADD_INL_H_
#undef FATHOM_KERNELS_MULTIPLY_ADD_INL_H_
#else
#define FATHOM_KERNELS_MULTIPLY_ADD_INL_H_
#endif

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

struct F32 {
  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) { return hn::MulAdd(a, b, sum); }
};

#if HWY_TARGET == HWY_AVX3_DL
// The instruction itself: Highway 1.0.3 has no target for it, and an intrinsic would not inline into this one.
struct PairsOfBF16 {
  static HWY_INLINE VF MulAdd(VF a, VF b, VF sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
};
#else
struct PairsOfBF16 : F32 {};  // never called: HasPairInstruction() is false
#endif

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif  // FATHOM_KERNELS_MULTIPLY_ADD_INL_H_

#include "fathom/machine/vector_units.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/machine/vector_units.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/simd/multiply_add-inl.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// Enough independent sums to hide either instruction's latency, few enough for 16 registers.
constexpr int kSums = 12;

template <class Kind>
double RunChains(int64_t rounds, float x) {
  const VF factor = hn::Set(DF(), x);
  VF sums[kSums];
#pragma GCC unroll 16
  for (int i = 0; i < kSums; ++i)
    sums[i] = hn::Set(DF(), x * static_cast<float>(i));  // no two alike, or the compiler computes one for both
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (VF& sum : sums) sum = Kind::MulAdd(factor, factor, sum);
  }
  double total = 0;
#pragma GCC unroll 16
  for (const VF& sum : sums) total += hn::GetLane(hn::SumOfLanes(DF(), sum));
  return total;
}

// The sum is given out so that nothing can be left out.
int64_t Run(DType dtype, int64_t rounds, float x, double* sum) {
  const bool pairs = dtype == DType::kBF16;
  *sum = pairs ? RunChains<PairsOfBF16>(rounds, x) : RunChains<F32>(rounds, x);
  return rounds * kSums * LanesF() * (pairs ? 4 : 2);
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/base/error.h"
#include "fathom/kernels/simd/simd.h"

namespace fathom {
HWY_EXPORT(Run);

int64_t RunMultiplyAdds(DType dtype, int64_t rounds) {
  FATHOM_CHECK(dtype == DType::kF32 || (dtype == DType::kBF16 && HasPairInstruction()), "{}", DTypeName(dtype));
  double sum = 0;
  const int64_t operations = HWY_DYNAMIC_DISPATCH(Run)(dtype, rounds, 0.5f, &sum);
  FATHOM_CHECK(sum > 0, "{}", sum);
  return operations;
}

}  // namespace fathom
#endif  // HWY_ONCE

// Random tensors: element i is a pure function of (seed, stream, i), whatever the number of threads.
#pragma once

#include <cstdint>

#include "fathom/tensor/view.h"

namespace fathom {

// Normal with this standard deviation; x F32|BF16, contiguous.
void FillNormal(uint64_t seed, uint64_t stream, double deviation, View x);

// Normal cut at two standard deviations and widened so that the deviation is as asked (by 1 / 0.87962566103423978).
void FillTruncatedNormal(uint64_t seed, uint64_t stream, double deviation, View x);

}  // namespace fathom

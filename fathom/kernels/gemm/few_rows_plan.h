// What the SIMD part of few_rows and its caller agree on.
#pragma once

#include <cstdint>

#include "fathom/kernels/gemm/few_rows.h"

namespace fathom {

// Rows of x that are multiplied together.
inline constexpr int64_t kRowBlock = 8;

// Room for a block of x [M,K] as a thread arranges it: whole lines, F32 at most.
inline int64_t ArrangedBytes(int64_t k) { return kRowBlock * (k + 64) * static_cast<int64_t>(sizeof(float)); }

}  // namespace fathom

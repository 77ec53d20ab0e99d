// What the SIMD part of few_rows and its caller agree on.
#pragma once

#include <cstdint>

#include "fathom/kernels/gemm/few_rows.h"

namespace fathom {

// Rows of x that are multiplied together, and rows for which weights come from memory once.
inline constexpr int64_t kRowBlock = 8, kSweepRows = 64;
// Weights that stay in cache while the blocks of a sweep take their turns.
inline constexpr int64_t kPieceBytes = 128 << 10;
// Weight rows that are converted together.
inline constexpr int64_t kConvertedRows = 32;

// Room for a block of x [M,K] as a thread arranges it: whole lines, F32 at most.
inline int64_t ArrangedBytes(int64_t k) { return kRowBlock * (k + 64) * static_cast<int64_t>(sizeof(float)); }

}  // namespace fathom

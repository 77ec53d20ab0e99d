// What this machine can do at most, measured once for all that a bench reports beside it; per second.
#pragma once

#include <algorithm>

#include "fathom/kernels/simd/simd.h"
#include "fathom/machine/limits.h"

namespace fathom {

// The vector units on registers alone. BF16 without an instruction of its own, or with a slow one, is multiplied as F32. A matrix unit may
// exceed it.
inline double UnitRate(DType type) {
  static const double f32 = MeasureVectorUnits(DType::kF32).median * 1e9;
  static const double bf16 = HasPairInstruction() ? std::max(f32, MeasureVectorUnits(DType::kBF16).median * 1e9) : f32;
  return type == DType::kF32 ? f32 : bf16;
}

// Large square products, ours or oneDNN's, whichever is faster.
inline double ProductRate(DType type) {
  static const double f32 = MeasureProducts(DType::kF32).median * 1e9;
  static const double bf16 = MeasureProducts(DType::kBF16).median * 1e9;
  return type == DType::kF32 ? f32 : bf16;
}

// Reading memory.
inline double ReadRate() {
  static const double rate = MeasureMemoryRead().median * 1e9;
  return rate;
}

}  // namespace fathom

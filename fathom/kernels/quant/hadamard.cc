#include "fathom/kernels/quant/hadamard.h"

#include <bit>
#include <cmath>

#include "fathom/base/threads.h"
#include "fathom/kernels/simd/rows.h"

namespace fathom {
namespace {

// log2(D) passes of butterflies, each over pairs `half` apart.
void RotateRow(float* x, int64_t d, float scale) {
  for (int64_t half = 1; half < d; half *= 2) {
    for (int64_t block = 0; block < d; block += 2 * half) {
      for (int64_t i = block; i < block + half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
  for (int64_t i = 0; i < d; ++i) x[i] *= scale;
}

}  // namespace

void HadamardRotate(View x) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  FATHOM_CHECK(IsMatrix(x, rows, d) && x.dtype() == DType::kF32 && std::has_single_bit(static_cast<uint64_t>(d)), "x {}",
               x.shape().ToString());
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(d)));
  ParallelRanges(rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) RotateRow(x.row<float>(r), d, scale);
  });
}

}  // namespace fathom

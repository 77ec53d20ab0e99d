// What the SIMD part of head_product and its caller agree on.
#pragma once

#include <cstdint>

#include "fathom/kernels/attention/head_product.h"

namespace fathom {

// Rows of weights that are widened together and stay in cache while all rows of x meet them.
// One row of x is bound by the reading of the weights, and fewer of them leave more of it to overlap.
inline constexpr int64_t kTileRows = 16, kTileRowsAlone = 4;

// One of the parts into which a head's output is cut: any element has the same bits in any of them.
struct HeadPart {
  int64_t head, begin, end;
};
// Parts end at multiples of this many columns of latents, or of rows on the way back.
inline constexpr int64_t kPartColumns = 16, kPartRows = 4;

struct HeadProductArgs : HeadWeights {
  HeadProduct kind;
  ConstView x;
  View y;
};

}  // namespace fathom

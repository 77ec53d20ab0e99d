// Rows of a table by token id.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/view.h"

namespace fathom {

// table [V,D] F32|BF16|F16, ids in 0..V-1; overwrites out [T,D] F32.
void EmbeddingForward(ConstView table, std::span<const int32_t> ids, View out);

// dtable[ids[t]] += dout[t], in token order (same bits for any number of threads).  dout [T,D] F32, dtable [V,D] F32.
void EmbeddingBackward(ConstView dout, std::span<const int32_t> ids, View dtable);

}  // namespace fathom

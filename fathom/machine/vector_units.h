// The CPU's vector units themselves: multiply-adds on registers, without memory. For measurements only; no layer calls them.
#pragma once

#include <cstdint>

#include "fathom/tensor/dtype.h"

namespace fathom {

// F32: fused multiply-add; BF16: vdpbf16ps, two products a lane. The number of floating point operations done (a multiply-add counts as
// two), on the calling thread. BF16 needs HasPairInstruction().
int64_t RunMultiplyAdds(DType dtype, int64_t rounds);

}  // namespace fathom

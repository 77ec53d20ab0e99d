// Multi-head latent attention, expanded form, over chosen keys (DeepSeek-V3.2 report, section on DeepSeek sparse attention): blocks of
// neighbouring queries meet the keys that any of them has chosen, loaded once, under a mask. Where a block's queries have chosen all that
// they see it is dense attention.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/kernels/attention/shared_keys.h"

namespace fathom {

inline constexpr int64_t kForwardQueries = 256;  // of a block of the forward at most; of the backward kMostSharedQueries

// For the queries of the blocks overwrites o [T,H*Dv], of the inputs' dtype, and lse and top [T,H] F32 (mla_attention.h) unless empty:
// zeros and -inf where a query has chosen nothing. Other rows are left alone.
void MlaChosenForward(const MlaShape& shape, std::span<const SharedKeys> blocks, const MlaInputs& in, View o, View lse, Arena& scratch,
                      View top = {});

// dq as q; dkv as kv; dk_rope [S,Dr] F32.
struct MlaChosenGradients {
  View dq, dkv, dk_rope;
};
// o, lse and d_o of the blocks' queries. Overwrites their rows of dq; adds to dkv, with one rounding for all blocks, and to dk_rope.
void MlaChosenBackward(const MlaShape& shape, std::span<const SharedKeys> blocks, const MlaInputs& in, const MlaOutputs& out,
                       const MlaChosenGradients& gradients, Arena& scratch);

}  // namespace fathom

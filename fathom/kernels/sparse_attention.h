// Multi-head latent attention over chosen keys, expanded form (DeepSeek-V3.2): keys and values are gathered per query; no work on others.
// The absorbed form is MlaDecode's `chosen`.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/kernels/mla_attention.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

// As MlaAttentionForward, but query t attends to the rows chosen[t*k..t*k+k) of kv and k_rope, which rise and end at a negative
// entry (IndexerTopK). Segments in which every query has chosen all that it sees go to the dense kernel: with k >= the longest
// context, results have the bits of dense attention. Queries outside segments are not written.
void SparseAttentionForward(const MlaShape& shape, std::span<const Segment> segments, std::span<const int32_t> chosen, int64_t k, ConstView q,
                            ConstView kv, ConstView k_rope, View o, View lse, Arena& scratch);

// As MlaAttentionBackward; the choice is a constant. Keys that nobody chose get zero gradients.
void SparseAttentionBackward(const MlaShape& shape, std::span<const Segment> segments, std::span<const int32_t> chosen, int64_t k, ConstView q,
                             ConstView kv, ConstView k_rope, ConstView o, ConstView lse, ConstView d_o, View dq, View dkv, View dk_rope,
                             Arena& scratch);

int64_t SparseAttentionScratchBytes(const MlaShape& shape, int64_t tokens, int64_t k);

}  // namespace fathom

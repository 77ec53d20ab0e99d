// Multi-head latent attention, expanded form (DeepSeek-V2 report, section 2.1): causal softmax attention inside segments,
// blockwise with a running maximum and sum, never a T x T matrix, forward or backward.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

struct MlaShape {
  int64_t heads, nope_dim, rope_dim, v_dim;  // H, Dn, Dr, Dv
  float scale;                               // multiplies every score
};

// Queries q_begin..q_end attend to keys k_begin..k_end of one document. The last query sees all keys, the one before it all but
// the last, and so on: query i sees keys k_begin .. k_end - (q_end - 1 - i). In training both ranges are the same tokens.
struct Segment {
  int64_t q_begin, q_end, k_begin, k_end;
};

// q [T,H*(Dn+Dr)] and k_rope [S,Dr] are rotated already; kv [S,H*(Dn+Dv)] holds each head's nope key, then its value. All F32 or all BF16.
struct MlaInputs {
  ConstView q, kv, k_rope;
};

// o [T,H*Dv], of the inputs' dtype, is overwritten; lse and top [T,H] F32, the log of each row's sum and its largest score, are overwritten
// unless empty.
void MlaAttentionForward(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in, View o, View lse, Arena& scratch,
                         View top = {});

// largest [H] is overwritten with the largest of top [T,H] F32 over the segments' queries; -infinity without any.
void LargestScores(std::span<const Segment> segments, ConstView top, std::span<float> largest);

// o and lse as the forward left them, and the gradient d_o [T,H*Dv] on o.
struct MlaOutputs {
  ConstView o, lse, d_o;
};
// Shapes and dtypes of q, kv, k_rope.
struct MlaGradients {
  View dq, dkv, dk_rope;
};

// Overwrites the gradients. Tokens outside every segment get zeros. Neither the q nor the k ranges of segments overlap; in training on one
// rank both are equal.
void MlaAttentionBackward(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in, const MlaOutputs& out,
                          const MlaGradients& gradients, Arena& scratch);

}  // namespace fathom

// Multi-head latent attention, absorbed form (DeepSeek-V2 report, section 2.1.2): queries go into the latent space, where one row serves
// all heads as key and value. For decoding, and for V3.2's chosen keys: one gather serves a matrix product over heads, and work and memory
// per token do not grow with the context. docs/layers/attention.md.
#pragma once

#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/kernels/attention/mla_decode.h"
#include "fathom/layers/context.h"

namespace fathom {

// What a call attends with. kv_b_proj [H*(Dn+Dv),R]; rows [S,R+Dr] compute dtype: normed latents, rotated keys.
struct LatentAttention {
  MlaShape shape;
  const Weight& kv_b_proj;
  std::span<const Segment> segments;
  std::span<const int32_t> chosen;  // [T*k] as IndexerTopK leaves it; empty: queries see all of their segment's keys, from row 0 on
  int64_t k;
  ConstView rows;
  // In decoding, for every query, whatever the segments' keys: how many of its sequence's rows it sees, and the blocks where they lie
  // (kernels/attention/mla_decode.h).
  std::span<const int64_t> visible = {};
  std::span<const BlockTable> tables = {};
};

// q [T,H*(Dn+Dr)] compute dtype, rotated. For the queries of the segments overwrites o [T,H*Dv] compute dtype and, unless empty, lse and
// top [T,H] F32 (kernels/attention/mla_decode.h). Other rows are left alone.
void LatentAttentionForward(Ctx& ctx, const LatentAttention& a, ConstView q, View o, View lse, View top = {});

// The queries of a backward: q, o and lse as in the forward; d_o [T,H*Dv] compute dtype, contiguous as o is. The segments' rows of dq (as
// q) are overwritten.
struct LatentAttentionQueries {
  ConstView q, o, lse, d_o;
  View dq;
};
// Adds to d_rows [S,R+Dr] F32 and to grad, the gradient of kv_b_proj (F32 or BF16). The choice, which is not empty, is a constant.
void LatentAttentionBackward(Ctx& ctx, const LatentAttention& a, const LatentAttentionQueries& queries, View d_rows, Weight& grad);

}  // namespace fathom

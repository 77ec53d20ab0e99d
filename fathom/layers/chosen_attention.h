// Attention over chosen keys (V3.2), every block of neighbouring queries in its cheapest form (layers/attention_cost.h): the same keys, the
// same result up to rounding. docs/layers/attention.md.
#pragma once

#include "fathom/kernels/attention/choice.h"
#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/layers/cache.h"
#include "fathom/layers/context.h"
#include "fathom/layers/options.h"

namespace fathom {

struct ChosenAttention {
  MlaShape shape;
  const Weight& kv_b_proj;  // [H*(Dn+Dv),R]
  std::span<const Segment> segments;
  Choice choice;  // [T*k] as IndexerTopK leaves it
  ChosenForm form;
  MlaInputs in;      // all keys expanded
  ConstView latent;  // [S,R] normed, compute dtype
};
// For the queries of the segments overwrites o [T,H*Dv] compute dtype, lse [T,H] F32 and, unless empty, top [T,H] F32
// (kernels/attention/mla_attention.h). Other rows are left alone. Queries that see no more than k keys have the bits of dense attention
// unless a form is asked for.
void ChosenAttentionForward(Ctx& ctx, const ChosenAttention& a, View o, View lse, View top = {});

struct ChosenGradients {
  View dq;      // as q; the segments' rows are overwritten
  View dkv;     // as kv; added to
  View d_rows;  // [S,R+Dr] F32, of latents and of rotated keys; added to
};
// The choice is a constant. Adds to grad, the gradient of kv_b_proj, what absorbed blocks have for it; that of the others follows from dkv.
void ChosenAttentionBackward(Ctx& ctx, const ChosenAttention& a, const MlaOutputs& out, const ChosenGradients& d, Weight& grad);

// The queries of one sequence of a decoding pass, whose keys lie in the cache as latents.
struct CachedChosenAttention {
  MlaShape shape;
  const Weight& kv_b_proj;
  const CachedRows& rows;
  const CachedSegment& segment;
  Choice choice;
  ChosenForm form;
  ConstView cache;  // [.,R+Dr] compute dtype
};
// q [M,H*(Dn+Dr)] and o [M,H*Dv] of all rows of the pass, compute dtype; the sequence's rows of o are overwritten.
void ChosenAttentionCached(Ctx& ctx, const CachedChosenAttention& a, ConstView q, View o);

}  // namespace fathom

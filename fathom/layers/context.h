// What every layer is handed besides its parameters and its input.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/gemm/gemm.h"
#include "fathom/layers/groups.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

struct Ctx {
  Arena& saved;            // what backward needs; released in reverse order of the layers
  Arena& scratch;          // everything else, released when the layer returns
  DType compute;           // F32 or BF16: the dtype of what enters a matrix product and of what is kept (docs/numerics.md)
  bool fp8_block = false;  // linear layers multiply what FP8 left of their operands (layers/linear.h)
  Arithmetic arithmetic = Arithmetic::kFastest;  // of forwards; kByRow: no row's bits depend on the others
  const LayerGroups& groups = OneRank();         // the ranks that compute a layer together
};

// How the tokens of a batch lie: rows are tokens 0..N-1 of all sequences, one after the other.
struct TokenLayout {
  std::span<const int32_t> positions;  // [N], within the document
  std::span<const Segment> segments;   // documents; tokens outside every segment are padding
  int64_t sequence = 0;                // tokens of each sequence of the batch; 0: all are one
  bool dense_attention = false;        // V3.2: see every key, whatever the indexer would choose (its warm-up)
  int64_t longest = 0;                 // document of the ranks that share the sequences, so that all of them ask the indexer or none
};

struct RopeTable;
// What all layers of one pass share: how its tokens lie and the angles that rotate them.
struct BlockInputs {
  const TokenLayout& layout;
  const RopeTable& rope;
};
// The same, and the layer's normed input x [T,D], compute dtype.
struct AttentionInputs : BlockInputs {
  ConstView x;
};

// x itself if it has the compute dtype, else a copy in scratch that has.
inline ConstView AsCompute(Ctx& ctx, ConstView x) {
  if (x.dtype() == ctx.compute) return x;
  const View y = ctx.scratch.Alloc(ctx.compute, x.shape());
  Cast(x, y);
  return y;
}
inline ConstView AsF32(Ctx& ctx, ConstView x) {
  if (x.dtype() == DType::kF32) return x;
  const View y = ctx.scratch.Alloc(DType::kF32, x.shape());
  Cast(x, y);
  return y;
}

}  // namespace fathom

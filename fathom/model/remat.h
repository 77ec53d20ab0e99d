// A layer's forward and backward under a remat policy: what is kept in between, what is made again.
#pragma once

#include "fathom/model/layer_terms.h"

namespace fathom {

// Memory for what the policy keeps of one layer: under kFull only the layer's input (h_in), everything else is made again.
Block::Saved AllocateKept(Arena& arena, const Block& block, DType compute, int64_t tokens, Remat remat,
                          const LayerGroups& groups = OneRank());

// One layer in one pass.
struct LayerPass {
  const Block& block;
  const BlockParams& p;
  BlockInputs inputs;
  Remat remat;
};

// h [T,D] F32 is updated in place; fills kept.
void ForwardKeeping(Ctx& ctx, const LayerPass& pass, View h, Block::Saved& kept);

// What the backward uses of the layer: kept's own memory, or made again in scratch.
Block::Saved Restored(Ctx& ctx, const LayerPass& pass, Block::Saved& kept);

// dh [T,D] F32 holds the gradient of the output and is turned into that of the input; adds to grad; kept is used up. layer: its number for
// the terms.
void BackwardKept(Ctx& ctx, const LayerPass& pass, Block::Saved& kept, const LayerTerms& terms, int64_t layer, View dh, BlockParams& grad);

}  // namespace fathom

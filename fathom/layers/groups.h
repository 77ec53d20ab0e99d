// The ranks that compute a layer together.
#pragma once

#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/parallel/comm.h"
#include "fathom/tensor/arena.h"

namespace fathom {

class Beside;  // parallel/beside.h

struct LayerGroups {
  Comm tensor;                      // each has some heads and a part of every MLP's width; all have the same tokens
  Comm expert;                      // each has some of the experts
  Comm context;                     // each has some tokens of every sequence
  Comm stage;                       // each has some of the layers, in their order
  Beside* expert_beside = nullptr;  // where rows travel along `expert` beside arithmetic; null: they are waited for
  bool same_tokens = false;         // the ranks of `expert` have the same tokens (decoding) rather than each its own
};

// The first of `layers` that stage number `stage` of so many has: as even as it goes, the first stages have the more.
constexpr int64_t FirstLayer(int64_t layers, int64_t stage, int64_t stages) { return (layers * stage + stages - 1) / stages; }

inline const LayerGroups& OneRank() {
  static const LayerGroups one;
  return one;
}

// add(y) adds this rank's part of a sum to a view of y's shape, F32; y gets what all ranks of the group add.
template <class F>
void AddOverRanks(const Comm& group, Arena& scratch, View y, const F& add) {
  if (group.size() == 1) return add(y);
  ArenaScope scope(scratch);
  const View part = scratch.Alloc(DType::kF32, y.shape());
  Fill(0, part);
  add(part);
  group.AllSum(part);
  AddScaled(1, part, y);
}

}  // namespace fathom

// How layers are computed where flags leave a choice. The default is the exact function (docs/flags.md).
#pragma once

namespace fathom {

// How the experts are run (MaxText's sparse_matmul and capacity_factor).
struct ExpertRun {
  enum Kind {
    kSorted,    // each on the tokens that chose it
    kDense,     // each on every token, with weight 0 where it was not chosen: the reference path, E/K times the work
    kCapacity,  // each on at most its capacity of a sequence's tokens; later ones are dropped, the weights of the rest stay as they are
  };
  Kind kind = kSorted;
  double capacity_factor = 1;
};

struct LayerOptions {
  ExpertRun experts;
  // Rotate the indexer's queries and keys by a Hadamard matrix and round them to FP8 with a power-of-two scale per head, as DeepSeek's
  // official inference code of V3.2 does.
  bool indexer_fp8 = false;
};

}  // namespace fathom

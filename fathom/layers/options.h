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

// Faults that implementations of the family really had, built in on request: `check` computes with them to find the one that explains
// another side's numbers (eval/faults.h has the list, most of which are another config or fewer parameters and need no switch). None is the
// model; they are read where a layer is made, and once per layer and pass.
struct LayerFaults {
  bool rope_halves = false;          // attention rotates pairs (x[i], x[i + d/2]), not (x[2i], x[2i+1])
  bool indexer_interleaved = false;  // the indexer rotates pairs (x[2i], x[2i+1]), not (x[i], x[i + d/2])
  bool plain_frequencies = false;    // rotary frequencies without YaRN's interpolation
  bool plain_softmax_scale = false;  // attention scores without YaRN's mscale^2
  bool bias_in_weights = false;      // the weights of experts are made from score + bias
  bool group_mask_zero = false;      // experts of groups that are left out compete with 0, not with -infinity
};

// How attention over chosen keys is computed (layers/chosen_attention.h).
enum class ChosenForm {
  kCheapest,
  kAbsorbed,  // every query gathers its latents
  kShared,    // blocks of queries share expanded keys, under a mask
};

struct LayerOptions {
  ExpertRun experts;
  // Rotate the indexer's queries and keys by a Hadamard matrix and round them to FP8 with a power-of-two scale per head, as DeepSeek's
  // official inference code of V3.2 does.
  bool indexer_fp8 = false;
  ChosenForm chosen_form = ChosenForm::kCheapest;
  bool max_logits = false;  // attention says each head's largest score (Mla::Saved)
  LayerFaults faults;
};

}  // namespace fathom

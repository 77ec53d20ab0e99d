// Which form attention over chosen keys takes (docs/layers/attention.md): absorbed, where each query gathers the latents that it has chosen
// and multiplies them with all heads, 3.4 times the arithmetic per key; or expanded, where a block of neighbouring queries shares the keys
// and values that any of them has chosen. Nothing is timed while a model runs: its bits must not depend on a clock.
#pragma once

#include <cstdint>

#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/tensor/dtype.h"

namespace fathom {

// The machine's figures, all in the time of one multiply-add of the expanded form.
struct FormRates {
  double absorbed_product;  // one multiply-add of the absorbed form
  double absorbed_row;      // bringing one chosen latent of one query to all heads
  double shared_row;        // bringing one key and value of one head to all queries of a block
};
enum class AttentionPass { kForward, kBackward };
// Measured with bench/attention_bench; they differ with the width of the products, not with the number of threads.
FormRates MeasuredRates(DType compute, AttentionPass pass);

// A block of neighbouring queries.
struct ChosenWork {
  MlaShape shape;
  int64_t rank;           // R
  int64_t queries;        // of the block
  int64_t chosen;         // keys of all of them together, those that several chose counted several times
  double expansions = 0;  // how many keys and values must be made out of latents for each key that the block shares
};
double AbsorbedCost(const FormRates& rates, AttentionPass pass, const ChosenWork& work);
double SharedCost(const FormRates& rates, AttentionPass pass, const ChosenWork& work, int64_t rows);
// The expanded form is not dearer where the block shares this many rows or fewer.
int64_t MostSharedRows(const FormRates& rates, AttentionPass pass, const ChosenWork& work);

}  // namespace fathom

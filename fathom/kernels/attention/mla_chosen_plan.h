// How mla_chosen's backward sums the gradients of keys. Independent of the SIMD target.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fathom/kernels/attention/attention_plan.h"
#include "fathom/kernels/attention/mla_attention.h"

namespace fathom {

// One head's gradients of keys [begin, end) and of their values, in F32: summed block of queries after block of queries.
struct KeySums {
  int64_t begin, end, wide, v_wide;
  float* sums;
  KeySums(const MlaShape& s, int64_t k_begin, int64_t k_end, float* base)
      : begin(k_begin), end(k_end), wide(PadBlock(s.nope_dim + s.rope_dim)), v_wide(PadBlock(s.v_dim)), sums(base) {}
  static int64_t Floats(const MlaShape& s, int64_t keys) { return keys * (PadBlock(s.nope_dim + s.rope_dim) + PadBlock(s.v_dim)); }
  float* Key(int64_t row) const { return sums + (row - begin) * (wide + v_wide); }
  float* Value(int64_t row) const { return Key(row) + wide; }
  void Clear() const { std::fill_n(sums, (end - begin) * (wide + v_wide), 0.0f); }
};

}  // namespace fathom

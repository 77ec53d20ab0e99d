// How sparse_attention cuts its work. Independent of the SIMD target.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "fathom/kernels/mla_attention_plan.h"

namespace fathom {

inline constexpr int64_t kSparseChunk = 64;  // queries of a forward job

// Rows that each query chose: rising, ended by a negative entry or by k.
struct Choice {
  std::span<const int32_t> chosen;
  int64_t k;
  std::span<const int32_t> Of(int64_t query) const {
    const std::span<const int32_t> all = chosen.subspan(static_cast<size_t>(query * k), static_cast<size_t>(k));
    return {all.begin(), std::partition_point(all.begin(), all.end(), [](int32_t row) { return row >= 0; })};
  }
};
struct SparseForwardArgs : MlaForwardArgs {
  Choice choice;
};
struct SparseBackwardArgs : MlaBackwardArgs {
  Choice choice;
};

struct SparseScratch {
  float *q, *o, *d_o, *dq, *scores;
  SparseScratch(const MlaShape& s, int64_t k, float* base) : SparseScratch(s, k, ScratchCursor(base)) {}
  static int64_t Floats(const MlaShape& s, int64_t k) { return SparseScratch(s, k, nullptr).floats; }
  int64_t floats;

 private:
  SparseScratch(const MlaShape& s, int64_t k, ScratchCursor cursor) {
    const int64_t width = s.nope_dim + s.rope_dim;
    q = cursor.Take(width);
    dq = cursor.Take(width);
    o = cursor.Take(s.v_dim);
    d_o = cursor.Take(s.v_dim);
    scores = cursor.Take(k);
    floats = cursor.used();
  }
};

// Gradients of one head's keys and values, side by side.
struct KeyGradients {
  MlaShape shape;
  float* base;
  static int64_t Stride(const MlaShape& s) { return PadBlock(s.nope_dim + s.rope_dim) + PadBlock(s.v_dim); }
  static int64_t Floats(const MlaShape& s, int64_t keys) { return keys * Stride(s); }
  float* Key(int64_t i) const { return base + i * Stride(shape); }
  float* Value(int64_t i) const { return Key(i) + PadBlock(shape.nope_dim + shape.rope_dim); }
};

}  // namespace fathom

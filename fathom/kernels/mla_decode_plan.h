// How mla_decode cuts its work. Independent of the SIMD target.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include "fathom/kernels/attention_plan.h"
#include "fathom/kernels/mla_decode.h"

namespace fathom {

struct DecodeArgs {
  MlaDecodeShape shape;
  ConstView q_latent, q_rope, cache;
  std::span<const int32_t> chosen;
  int64_t k;
};
// Rows [begin, end) of what one query attends to.
struct DecodePart {
  int64_t query, begin, end;
};
struct PartialSums {
  float* sums;            // [H, PadBlock(R)]
  RunningSoftmax* state;  // [H]
};
struct HeadProductArgs {
  HeadProduct kind;
  int64_t heads;
  WeightView w;
  int64_t first, rows;
  ConstView x;
  View y;
};

// A query's rows are cut into parts by their number alone, so that threads share them and the bits stay.
inline constexpr int64_t kLeastPart = 512, kMostParts = 32;
inline int64_t DecodeParts(int64_t rows) { return std::min(kMostParts, (rows + kLeastPart - 1) / kLeastPart); }
inline std::pair<int64_t, int64_t> DecodeRange(int64_t rows, int64_t part) {
  const int64_t parts = DecodeParts(rows), blocks = (rows + kKeyBlock - 1) / kKeyBlock;
  return {std::min(rows, blocks * part / parts * kKeyBlock), std::min(rows, blocks * (part + 1) / parts * kKeyBlock)};
}

struct DecodeScratch {
  float *q, *rows, *rows_t, *scores, *factor;
  DecodeScratch(const MlaDecodeShape& s, float* base) : DecodeScratch(s, ScratchCursor(base)) {}
  static int64_t Floats(const MlaDecodeShape& s) { return DecodeScratch(s, nullptr).floats; }
  int64_t floats;

 private:
  DecodeScratch(const MlaDecodeShape& s, ScratchCursor cursor) {
    const int64_t wide = PadBlock(s.latent_dim + s.rope_dim);
    q = cursor.Take(s.heads * wide);
    rows = cursor.Take(kKeyBlock * wide);
    rows_t = cursor.Take(kKeyBlock * wide);
    scores = cursor.Take(s.heads * kKeyBlock);
    factor = cursor.Take(s.heads);
    floats = cursor.used();
  }
};

}  // namespace fathom

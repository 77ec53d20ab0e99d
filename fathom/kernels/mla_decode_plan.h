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
  bool pairs;  // products over pairs of BF16
};
// Rows [begin, end) of what one query attends to.
struct DecodePart {
  int64_t query, begin, end;
};
struct PartialSums {
  float* sums;        // [H, PadBlock(R)]
  float *top, *sum;   // [PadBlock(H)]: largest score times log2(e), sum of e^(score - largest)
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
  float *query_rows, *queries_t, *rows, *rows_sum, *scores, *p, *factor;
  DecodeScratch(const MlaDecodeShape& s, float* base) : DecodeScratch(s, ScratchCursor(base)) {}
  static int64_t Floats(const MlaDecodeShape& s) { return DecodeScratch(s, nullptr).floats; }
  int64_t floats;

 private:
  DecodeScratch(const MlaDecodeShape& s, ScratchCursor cursor) {
    const int64_t wide = PadBlock(s.latent_dim + s.rope_dim);
    query_rows = cursor.Take(kQueryBlock * wide);
    queries_t = cursor.Take(PadBlock(s.heads) * wide);
    rows = cursor.Take(kKeyBlock * wide);
    rows_sum = cursor.Take(kKeyBlock * wide);
    scores = cursor.Take(kKeyBlock * kQueryBlock);
    p = cursor.Take(kKeyBlock * kQueryBlock);
    factor = cursor.Take(kQueryBlock);
    floats = cursor.used();
  }
};

}  // namespace fathom

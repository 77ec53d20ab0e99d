// How mla_decode cuts its work. Independent of the SIMD target.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include "fathom/kernels/attention/attention_plan.h"
#include "fathom/kernels/attention/choice.h"
#include "fathom/kernels/attention/mla_decode.h"
#include "fathom/kernels/simd/worker_jobs.h"

namespace fathom {

struct DecodeArgs : MlaDecodeInputs {
  MlaDecodeShape shape;
  bool pairs;  // products over pairs of BF16
};
static_assert(kCacheBlock == kKeyBlock, "a block of keys lies in one block of the cache");
// Heads [head, head_end) and rows [begin, end) of what one query attends to.
struct DecodePart {
  int64_t query, head, head_end, begin, end;
};
struct DecodeResults {
  View o_latent, lse, top;
};
struct PartialSums {
  float* sums;       // [H, PadBlock(R)]
  float *top, *sum;  // [PadBlock(H)]: largest score times log2(e), sum of e^(score - largest)
};

struct DecodeBackwardArgs : DecodeArgs, MlaDecodeOutputs {
  MlaDecodeGradients out;
};
inline constexpr int64_t kPackedQueries = 16;

// What the first pass over a query (its own gradients) leaves for the second (those of the rows): queries and d_o as right factors of sums
// over heads, and for each block of keys and of heads the left factors p and ds.
struct PackedQuery {
  float *queries, *d_o, *p, *d_scores;
  PackedQuery(const MlaDecodeShape& s, int64_t k, float* base) : PackedQuery(s, k, ScratchCursor(base)) {}
  static int64_t Floats(const MlaDecodeShape& s, int64_t k) { return PackedQuery(s, k, nullptr).floats; }
  int64_t floats;
  // Of heads [head, head + 64) and keys [key, key + 64), in p and d_scores.
  static int64_t Offset(const MlaDecodeShape& s, int64_t key, int64_t head) { return key * PadBlock(s.heads) + kKeyBlock * head; }

 private:
  PackedQuery(const MlaDecodeShape& s, int64_t k, ScratchCursor cursor) {
    const int64_t heads = PadBlock(s.heads), keys = (k + kKeyBlock - 1) / kKeyBlock * kKeyBlock;
    queries = cursor.Take(heads * PadBlock(s.latent_dim + s.rope_dim));
    d_o = cursor.Take(heads * PadBlock(s.latent_dim));
    p = cursor.Take(keys * heads);
    d_scores = cursor.Take(keys * heads);
    floats = cursor.used();
  }
};

// A query's rows are cut into parts by their number alone, so that threads share them and the bits stay: short ones while they are few,
// since the parts' sums are read again.
inline constexpr int64_t kLeastPart = 128, kFewParts = 16, kLongPart = 512, kMostParts = 32;
inline int64_t DecodeParts(int64_t rows) {
  const auto of = [rows](int64_t part) { return (rows + part - 1) / part; };
  return std::max(std::min(kFewParts, of(kLeastPart)), std::min(kMostParts, of(kLongPart)));
}
// Where threads do not share the parts evenly, each is cut by blocks of kBlockPad heads as well; a head has the same bits in any group.
inline int64_t HeadBlocks(int64_t heads) { return PadBlock(heads) / kBlockPad; }
inline int64_t DecodeHeadGroups(int64_t heads, int64_t parts, int64_t threads) { return EvenParts(parts, HeadBlocks(heads), threads); }
// Where that is not enough either, scores are computed strip of rows by strip of rows, and then each part's sums range of latents by range.
// Only where threads would go without: it is work in two turns, and each range repeats the softmax.
inline bool IsBetterInStrips(int64_t heads, int64_t parts, int64_t threads) {
  return parts > 0 && threads > 4 && Unevenness(parts * DecodeHeadGroups(heads, parts, threads), threads) > 1.25;
}
inline std::pair<int64_t, int64_t> DecodeRange(int64_t rows, int64_t part) {
  const int64_t parts = DecodeParts(rows), blocks = (rows + kKeyBlock - 1) / kKeyBlock;
  return {std::min(rows, blocks * part / parts * kKeyBlock), std::min(rows, blocks * (part + 1) / parts * kKeyBlock)};
}

struct DecodeScratch {
  float *query_rows, *queries_t, *rows, *rows_sum, *scores, *p, *factor, *top, *sum;
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
    top = cursor.Take(kBlockPad);
    sum = cursor.Take(kBlockPad);
    floats = cursor.used();
  }
};

struct DecodeBackwardScratch {
  float *head_rows, *queries_t, *d_o_t, *rows, *rows_sum, *scores, *d_scores, *p, *lse, *dot, *dq, *o;
  DecodeBackwardScratch(const MlaDecodeShape& s, float* base) : DecodeBackwardScratch(s, ScratchCursor(base)) {}
  static int64_t Floats(const MlaDecodeShape& s) { return DecodeBackwardScratch(s, nullptr).floats; }
  int64_t floats;

 private:
  DecodeBackwardScratch(const MlaDecodeShape& s, ScratchCursor cursor) {
    const int64_t wide = PadBlock(s.latent_dim + s.rope_dim), latent_wide = PadBlock(s.latent_dim), heads = PadBlock(s.heads);
    head_rows = cursor.Take(kQueryBlock * wide);
    queries_t = cursor.Take(heads * wide);
    d_o_t = cursor.Take(heads * latent_wide);
    rows = cursor.Take(kKeyBlock * wide);
    rows_sum = cursor.Take(kKeyBlock * wide);
    scores = cursor.Take(kKeyBlock * kQueryBlock);
    d_scores = cursor.Take(kKeyBlock * kQueryBlock);
    p = cursor.Take(kKeyBlock * kQueryBlock);
    lse = cursor.Take(heads);
    dot = cursor.Take(heads);
    dq = cursor.Take(heads * wide);
    o = cursor.Take(heads * latent_wide);
    floats = cursor.used();
  }
};

}  // namespace fathom

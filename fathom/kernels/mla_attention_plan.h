// How mla_attention cuts its work: blocks, chunks and the scratch of one worker. Independent of the SIMD target.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "fathom/kernels/attention_plan.h"
#include "fathom/kernels/mla_attention.h"

namespace fathom {

inline constexpr int64_t kQueryBlock = 48;    // rows of scores at a time: 12 KiB with 64 keys
inline constexpr int64_t kQueryChunk = 256;   // queries per forward job at most: a block of keys is packed once for all of them

struct MlaAttentionArgs {
  MlaShape shape;
  ConstView q, kv, k_rope;
};
struct MlaForwardArgs : MlaAttentionArgs {
  View o, lse;
};
struct MlaBackwardArgs : MlaAttentionArgs {
  ConstView o, lse, d_o;
  View dq, dkv, dk_rope;
};

// Keys that query i sees end here.
inline int64_t VisibleEnd(const Segment& s, int64_t query) { return s.k_end - (s.q_end - 1 - query); }

inline int64_t QueryChunks(const Segment& s) { return (s.q_end - s.q_begin + kQueryChunk - 1) / kQueryChunk; }
inline std::pair<int64_t, int64_t> QueryChunk(const Segment& s, int64_t i) {
  const int64_t n = s.q_end - s.q_begin, chunks = QueryChunks(s);
  return {s.q_begin + n * i / chunks, s.q_begin + n * (i + 1) / chunks};
}

struct ForwardScratch {
  float *q, *o, *keys, *keys_t, *values, *scores;
  ForwardScratch(const MlaShape& s, float* base) : ForwardScratch(s, ScratchCursor(base)) {}
  static int64_t Floats(const MlaShape& s) { return ForwardScratch(s, nullptr).floats; }
  int64_t floats;

 private:
  ForwardScratch(const MlaShape& s, ScratchCursor cursor) {
    const int64_t wide = PadBlock(s.nope_dim + s.rope_dim), v_wide = PadBlock(s.v_dim);
    q = cursor.Take(kQueryChunk * wide);
    o = cursor.Take(kQueryChunk * v_wide);
    keys = cursor.Take(kKeyBlock * wide);
    keys_t = cursor.Take(kKeyBlock * wide);
    values = cursor.Take(kKeyBlock * v_wide);
    scores = cursor.Take(kQueryBlock * kKeyBlock);
    floats = cursor.used();
  }
};

// Blocks of keys as in the forward pass; q, d_o, dq, lse and dot of a whole segment and head.
struct BackwardScratch {
  float *keys, *keys_t, *values, *values_t, *d_keys, *d_values, *scores, *d_scores, *q, *d_o, *dq, *lse, *dot;
  BackwardScratch(const MlaShape& s, int64_t length, float* base) : BackwardScratch(s, length, ScratchCursor(base)) {}
  static int64_t Floats(const MlaShape& s, int64_t length) { return BackwardScratch(s, length, nullptr).floats; }
  int64_t floats;

 private:
  BackwardScratch(const MlaShape& s, int64_t length, ScratchCursor cursor) {
    const int64_t wide = PadBlock(s.nope_dim + s.rope_dim), v_wide = PadBlock(s.v_dim);
    keys = cursor.Take(kKeyBlock * wide);
    keys_t = cursor.Take(kKeyBlock * wide);
    values = cursor.Take(kKeyBlock * v_wide);
    values_t = cursor.Take(kKeyBlock * v_wide);
    d_keys = cursor.Take(kKeyBlock * wide);
    d_values = cursor.Take(kKeyBlock * v_wide);
    scores = cursor.Take(kQueryBlock * kKeyBlock);
    d_scores = cursor.Take(kQueryBlock * kKeyBlock);
    q = cursor.Take(length * wide);
    d_o = cursor.Take(length * v_wide);
    dq = cursor.Take(length * wide);
    lse = cursor.Take(length);
    dot = cursor.Take(length);
    floats = cursor.used();
  }
};

}  // namespace fathom

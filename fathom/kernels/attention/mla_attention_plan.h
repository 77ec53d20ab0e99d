// How mla_attention cuts its work: blocks, chunks and the scratch of one worker. Independent of the SIMD target.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fathom/base/threads.h"
#include "fathom/kernels/attention/attention_plan.h"
#include "fathom/kernels/attention/mla_attention.h"

namespace fathom {

// Queries per forward job at most: a block of keys is packed once for all of them. A query has the same bits in any chunk.
inline constexpr int64_t kQueryChunk = 256;
// Jobs for each thread, so that those of the last queries, which see the most keys, do not keep the others waiting.
inline constexpr int64_t kJobsPerThread = 4;

struct MlaAttentionArgs : MlaInputs {
  MlaShape shape;
  bool pairs;  // products over pairs of BF16
  int64_t width() const { return shape.nope_dim + shape.rope_dim; }
};
struct MlaForwardArgs : MlaAttentionArgs {
  View o, lse, top;
};
struct MlaBackwardArgs : MlaAttentionArgs, MlaOutputs, MlaGradients {};

void CheckSegments(std::span<const Segment> segments, int64_t queries, int64_t keys);
// Checks shapes, dtypes and segments; says whether products may take pairs of BF16.
bool CheckMlaInputs(const MlaShape& shape, std::span<const Segment> segments, const MlaInputs& in);

// Of all but dk_rope.
void CheckMlaGradients(const MlaBackwardArgs& a);

// Where the heads of a group leave their part of dk_rope: [HeadGroups][T][Dr] F32.
struct RopeGradientParts {
  float* parts;
  int64_t groups, tokens, rope_dim;
  float* Group(int64_t g) const { return parts + g * tokens * rope_dim; }
};
// dk_rope of the segments' keys: the groups' parts, added in order.
void AddRopeGradients(const RopeGradientParts& parts, std::span<const Segment> segments, View dk_rope);

// Keys one behind the other.
struct KeyRange {
  int64_t first, n;
  int64_t count() const { return n; }
  int64_t Row(int64_t i) const { return first + i; }
};

// Keys that query i sees end here.
inline int64_t VisibleEnd(const Segment& s, int64_t query) { return s.k_end - (s.q_end - 1 - query); }

// Pairs of queries [begin, end) and the keys that they see.
inline double VisiblePairs(const Segment& s, int64_t begin, int64_t end) {
  return static_cast<double>(end - begin) *
         (static_cast<double>(VisibleEnd(s, begin) + VisibleEnd(s, end - 1)) / 2 - static_cast<double>(s.k_begin));
}

inline int64_t QueryChunks(const Segment& s, int64_t most) { return (s.q_end - s.q_begin + most - 1) / most; }
// Of chunks of at most `most` queries the i-th.
inline IndexRange QueryChunk(const Segment& s, int64_t most, int64_t i) {
  const auto [begin, end] = OwnRange(s.q_end - s.q_begin, i, QueryChunks(s, most));
  return {s.q_begin + begin, s.q_begin + end};
}
// Queries per forward job that give every thread enough of them.
inline int64_t QueriesPerJob(std::span<const Segment> segments, int64_t heads, int64_t threads) {
  for (int64_t most = kQueryChunk; most > kQueryBlock; most /= 2) {
    int64_t chunks = 0;
    for (const Segment& s : segments) chunks += QueryChunks(s, most);
    if (chunks * heads >= kJobsPerThread * threads) return most;
  }
  return kQueryBlock;
}
// Of a segment's queries, counted from its first, the first that sees a key.
inline int64_t FirstSeeingQuery(const Segment& s, int64_t key) {
  return std::max<int64_t>(0, key - s.k_begin - ((s.k_end - s.k_begin) - (s.q_end - s.q_begin)));
}
inline int64_t QueryBlocks(int64_t n) { return (n + kQueryBlock - 1) / kQueryBlock; }

// Sizes are those of F32 blocks; pairs of BF16 take half of them.
struct ForwardScratch {
  float *rows, *queries_t, *o, *keys, *values, *values_sum, *scores, *p, *top, *sum, *factor;
  ForwardScratch(const MlaShape& s, float* base) : ForwardScratch(s, ScratchCursor(base)) {}
  static int64_t Floats(const MlaShape& s) { return ForwardScratch(s, nullptr).floats; }
  int64_t floats;

 private:
  ForwardScratch(const MlaShape& s, ScratchCursor cursor) {
    const int64_t wide = PadBlock(s.nope_dim + s.rope_dim), v_wide = PadBlock(s.v_dim);
    rows = cursor.Take(kQueryBlock * wide);
    queries_t = cursor.Take(kQueryChunk * wide);
    o = cursor.Take(kQueryChunk * v_wide);
    keys = cursor.Take(kKeyBlock * wide);
    values = cursor.Take(kKeyBlock * v_wide);
    values_sum = cursor.Take(kKeyBlock * v_wide);
    scores = cursor.Take(kQueryBlock * kKeyBlock);
    p = cursor.Take(kQueryBlock * kKeyBlock);
    top = cursor.Take(kQueryChunk);
    sum = cursor.Take(kQueryChunk);
    factor = cursor.Take(kQueryChunk);
    floats = cursor.used();
  }
};

// Blocks of keys; queries, d_o, dq, lse and dot of a whole segment and head. _t: transposed, _sum: right factors summed over rows.
struct BackwardScratch {
  float *rows, *keys, *keys_sum, *values, *d_keys, *d_values, *scores, *d_scores, *p, *ds;
  float *queries_t, *queries_sum, *d_o_t, *d_o_sum, *dq, *lse, *dot;
  BackwardScratch(const MlaShape& s, int64_t length, float* base) : BackwardScratch(s, length, ScratchCursor(base)) {}
  static int64_t Floats(const MlaShape& s, int64_t length) { return BackwardScratch(s, length, nullptr).floats; }
  int64_t floats;

 private:
  BackwardScratch(const MlaShape& s, int64_t length, ScratchCursor cursor) {
    const int64_t wide = PadBlock(s.nope_dim + s.rope_dim), v_wide = PadBlock(s.v_dim), padded = QueryBlocks(length) * kQueryBlock;
    rows = cursor.Take(kQueryBlock * std::max(wide, v_wide));
    keys = cursor.Take(kKeyBlock * wide);
    keys_sum = cursor.Take(kKeyBlock * wide);
    values = cursor.Take(kKeyBlock * v_wide);
    d_keys = cursor.Take(kKeyBlock * wide);
    d_values = cursor.Take(kKeyBlock * v_wide);
    for (float** block : {&scores, &d_scores, &p, &ds}) *block = cursor.Take(kQueryBlock * kKeyBlock);
    queries_t = cursor.Take(padded * wide);
    queries_sum = cursor.Take(padded * wide);
    d_o_t = cursor.Take(padded * v_wide);
    d_o_sum = cursor.Take(padded * v_wide);
    dq = cursor.Take(padded * wide);
    lse = cursor.Take(padded);
    dot = cursor.Take(padded);
    floats = cursor.used();
  }
};

// Their number does not depend on the threads, so the order of the sum does not.
inline constexpr int64_t kMaxHeadGroups = 128;
inline int64_t HeadGroups(const MlaShape& shape) { return std::min(shape.heads, kMaxHeadGroups); }

// Where threads outnumber heads and segments, each of them is cut: parts of its queries, for dq, and parts of its keys, for dkv and
// dk_rope. Scores are computed in both, which is 7 products for 5.
struct BackwardPart {
  int64_t segment;
  bool of_keys;
  IndexRange range;  // of the segment's queries or keys, from a multiple of kQueryBlock on
  double work;       // of one head
};
bool IsBetterInParts(std::span<const Segment> segments, int64_t heads, int64_t threads);
// All parts, the longest first: several for each thread. They lie in scratch.
std::span<const BackwardPart> BackwardParts(std::span<const Segment> segments, int64_t heads, int64_t threads, Arena& scratch);

}  // namespace fathom

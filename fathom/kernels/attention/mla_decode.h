// Multi-head latent attention, absorbed form: queries are carried into the latent space, the cache is read as it is
// (DeepSeek-V2 report, section 2.1.2). For decoding: few queries, long caches; bound by the reading of the cache. And for sparse attention:
// all heads of a query share the chosen rows, which one gather brings into cache.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

inline constexpr int64_t kCacheBlock = 64;
using BlockTable = std::span<const int32_t>;
struct MlaDecodeShape {
  int64_t heads, latent_dim, rope_dim;  // H, R, Dr
  float scale;
};

// M queries and what they see. With `tables`, one per query, a sequence's rows lie in blocks of kCacheBlock: its row i is row
// tables[m][i / kCacheBlock] * kCacheBlock + i % kCacheBlock of the cache.
struct MlaDecodeInputs {
  ConstView q_latent, q_rope;            // [M,H*R] F32: q_nope W_uk per head; [M,H*Dr] F32, rotated
  ConstView cache;                       // [S,R+Dr] F32 or BF16: normed latent, then the rotated key
  std::span<const int64_t> visible;      // query m attends to rows 0..visible[m]-1,
  std::span<const int32_t> chosen = {};  // or, unless empty, to chosen[m*k..m*k+k), as IndexerTopK leaves them: -1 behind the last
  int64_t k = 0;
  std::span<const BlockTable> tables = {};
  bool whole = false;  // for many queries: the rows of each are summed in one go, not in parts that threads share
};

// o_latent [M,H*R] F32 is overwritten with softmax(scale * scores) times the latents; lse [M,H] F32, unless empty, with the log of each
// row's sum and top, likewise, with its largest score (-inf where nothing is seen). A query's bits depend on its own row and the rows that
// it sees alone.
void MlaDecode(const MlaDecodeShape& shape, const MlaDecodeInputs& in, View o_latent, View lse, Arena& scratch, View top = {});

// The backward over chosen rows, without tables. dot [M,H] F32: rowsum(dO o) of each head. Overwrites dq_latent [M,H*R] and dq_rope
// [M,H*Dr] F32, and o_latent [M,H*R], which the gradient of W_uv needs; adds to d_cache [S,R+Dr] F32, each element in the order of queries.
struct MlaDecodeOutputs {
  ConstView lse, dot, d_o_latent;
};
struct MlaDecodeGradients {
  View o_latent, dq_latent, dq_rope, d_cache;
};
void MlaDecodeBackward(const MlaDecodeShape& shape, const MlaDecodeInputs& in, const MlaDecodeOutputs& out,
                       const MlaDecodeGradients& gradients, Arena& scratch);

}  // namespace fathom

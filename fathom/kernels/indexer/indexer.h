// The lightning indexer of DeepSeek-V3.2 (report, section on DeepSeek sparse attention): which keys each query attends to.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/kernels/attention/mla_decode.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

struct IndexerShape {
  int64_t heads, head_dim;  // index_n_heads Hi, index_head_dim Dh
};

// score(t, s) = sum_h weights[t,h] max(0, q[t,h] . k[s]). q [T,Hi*Dh] and k [S,Dh] F32 or BF16 (both alike), rotated; weights [T,Hi]
// F32 carry Hi^-1/2 Dh^-1/2.
struct IndexerInputs {
  IndexerShape shape;
  ConstView q, k, weights;
};

// The first query of a segment whose row of q and of weights is read where no scores are asked for: those before it see no more than top_k
// keys. The segment's end: none is.
int64_t FirstCompared(const Segment& s, int64_t top_k);

// For every query of the segments the best min(top_k, visible) of the keys it sees, exactly, equal
// scores to the lower index, NaN as -inf: chosen [T*top_k] rows of k in rising order, -1 behind them (and outside segments).
// scores [T,top_k] F32, unless empty: the scores of the chosen; -inf behind them. Work O(T*S) in blocks, none for queries that see
// no more than top_k keys unless scores are asked for.
// False: a score that was compared is not finite, and the choice hides it.
// With `tables`, one per segment, whose keys then count from 0, they lie in blocks as mla_decode.h has it.
bool IndexerTopK(const IndexerInputs& in, std::span<const Segment> segments, int64_t top_k, std::span<int32_t> chosen, View scores,
                 Arena& scratch, std::span<const BlockTable> tables = {});

}  // namespace fathom

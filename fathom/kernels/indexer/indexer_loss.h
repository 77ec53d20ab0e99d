// The indexer's own loss (DeepSeek-V3.2 report, continued pre-training): KL of its softmax from the main attention's, summed over heads.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/kernels/attention/mla_attention.h"
#include "fathom/kernels/indexer/indexer.h"

namespace fathom {

// Main attention, a constant here: q, kv and k_rope as in mla_attention.h, lse [T,H] F32 over the same keys as the loss.
struct IndexerTarget {
  MlaShape shape;
  ConstView q, kv, k_rope, lse;
};
// The queries of the segments, each over the keys that it sees (chosen empty: the dense stage) or has chosen (chosen [T*k] as IndexerTopK
// leaves it: the sparse stage).
struct IndexerKeys {
  std::span<const Segment> segments;
  std::span<const int32_t> chosen;
  int64_t k;
};
struct IndexerGradients {
  View dq, dk, dweights;  // F32, shapes of q, k and weights; overwritten
};

// For each query, over its keys s:
//   p = softmax(score), t = sum_h softmax(main score of head h), t /= sum_s t + 1e-8, kl = sum_s t (log(t + 1e-8) - log(p + 1e-8)).
// kl [T] is overwritten, zero outside segments. Gradients of factor * sum_t kl[t]; empty views: only kl. Each query's keys are walked
// in blocks with one row of scores per query of a block; no T x T matrix.
void IndexerLoss(const IndexerTarget& target, const IndexerInputs& indexer, const IndexerKeys& keys, float factor, std::span<float> kl,
                 const IndexerGradients& gradients, Arena& scratch);

}  // namespace fathom

// The lightning indexer of DeepSeek-V3.2 (report, section on DeepSeek sparse attention): a small attention of its own chooses the
// index_topk tokens that each query of the main attention sees. It learns from its own loss alone; its inputs are constants.
// docs/layers/indexer.md.
#pragma once

#include <span>

#include "fathom/config/model_config.h"
#include "fathom/kernels/attention/rope.h"
#include "fathom/kernels/indexer/indexer_loss.h"
#include "fathom/layers/context.h"
#include "fathom/layers/context_rows.h"
#include "fathom/layers/options.h"
#include "fathom/layers/rope_table.h"

namespace fathom {

struct IndexerParams {
  Weight wq_b;                 // [Hi*Dh,Q]
  Weight wk;                   // [Dh,D]
  Weight k_norm, k_norm_bias;  // [Dh]
  Weight weights_proj;         // [Hi,D]
};

class Indexer {
 public:
  // Under options.indexer_fp8 what is chosen changes, what is learned does not.
  Indexer(const ModelConfig& config, const LayerOptions& options);
  int64_t top_k() const { return top_k_; }
  int64_t head_dim() const { return shape_.head_dim; }
  const IndexerShape& shape() const { return shape_; }

  // The layer's input and what the main attention has made of it.
  struct Inputs {
    ConstView x;      // [T,D] normed, compute dtype
    ConstView q_low;  // [T,Q] the queries' latent after its norm, compute dtype
    std::span<const int32_t> positions;
    const RopeTable& rope;
    Inputs Rows(int64_t begin, int64_t end) const {
      return {x.Rows(begin, end), q_low.Rows(begin, end), positions.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
              rope};
    }
  };

  // Rotated keys [T,Dh] of the tokens, as Choose compares them, compute dtype: overwrites k.
  void Keys(Ctx& ctx, const IndexerParams& p, const Inputs& in, View k) const;
  // The keys that every query of the segments sees, and false where a score is not finite, as IndexerTopK: chosen [T*top_k] is overwritten.
  // k [S,Dh] are all keys, in decoding in the blocks of each segment's table.
  bool Choose(Ctx& ctx, const IndexerParams& p, const Inputs& in, std::span<const Segment> segments, ConstView k, std::span<int32_t> chosen,
              std::span<const BlockTable> tables = {}) const;
  // The scores of one query [T] with keys 0, 1, ...; scores is overwritten.
  void Scores(Ctx& ctx, const IndexerParams& p, const Inputs& in, int64_t query, std::span<float> scores) const;
  // The sum of the KL of the tokens from the main attention's weights over `keys` (IndexerLoss); adds the gradients of factor times it to
  // grad.
  // `rows`: the ranks that share the sequences; the target and `keys` know the keys of all of them.
  double Learn(Ctx& ctx, const IndexerParams& p, const Inputs& in, const IndexerTarget& target, const IndexerKeys& keys,
               const ContextRows& rows, float factor, IndexerParams& grad) const;

 private:
  void Rotate(View x, int64_t heads, const Inputs& in, RopeDirection direction) const;
  // q [T,Hi*Dh] compute dtype and weights [T,Hi] F32: overwritten.
  struct Queries {
    View q, weights;
    Queries Rows(int64_t begin, int64_t end) const { return {q.Rows(begin, end), weights.Rows(begin, end)}; }
  };
  Queries AllocQueries(Ctx& ctx, int64_t tokens) const;
  void MakeQueries(Ctx& ctx, const IndexerParams& p, const Inputs& in, const Queries& to) const;
  void ExactKeys(Ctx& ctx, const IndexerParams& p, const Inputs& in, View k) const;
  void RoundAsOfficial(Ctx& ctx, View x, int64_t heads) const;
  void BackwardKeys(Ctx& ctx, const IndexerParams& p, const Inputs& in, View dk, IndexerParams& grad) const;

  IndexerShape shape_;
  int64_t top_k_;
  bool fp8_;
  RopePairs pairs_;
  float weight_scale_;  // Hi^-1/2 Dh^-1/2
};

}  // namespace fathom

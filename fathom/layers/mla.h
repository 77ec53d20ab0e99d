// Multi-head latent attention (DeepSeek-V2 report, section 2.1): queries through a low rank (or plain), keys and values through a
// latent of kv_lora_rank numbers and one rotated key shared by all heads. docs/layers/attention.md. In V3.2 an indexer chooses the keys.
#pragma once

#include <optional>

#include "fathom/config/model_config.h"
#include "fathom/kernels/attention/rope.h"
#include "fathom/layers/cache.h"
#include "fathom/layers/context.h"
#include "fathom/layers/context_rows.h"
#include "fathom/layers/indexer.h"
#include "fathom/layers/options.h"
#include "fathom/layers/rope_table.h"

namespace fathom {

struct MlaParams {
  Weight q_proj;                              // [H*(Dn+Dr),D]; only without q_lora
  Weight q_a_proj, q_a_layernorm, q_b_proj;   // [Q,D], [Q], [H*(Dn+Dr),Q]
  Weight kv_a_proj_with_mqa, kv_a_layernorm;  // [R+Dr,D], [R]
  Weight kv_b_proj, o_proj;                   // [H*(Dn+Dv),R], [D,H*Dv]
  IndexerParams indexer;                      // V3.2
};

class Mla {
 public:
  Mla(const ModelConfig& config, const LayerOptions& options);
  struct Saved {
    View q_low, q_low_rstd;     // [T,Q] before its norm, [T]; empty without q_lora
    View q;                     // [T,H*(Dn+Dr)] rotated
    View kv_low, latent_rstd;   // [S,R+Dr]: latent before its norm, then the rotated key; [S]. S: T, or the tokens of all ranks that share
    View kv;                    // [S,H*(Dn+Dv)]                                                 the sequences, in their order
    View o, lse;                // [T,H*Dv], [T,H] F32
    std::span<int32_t> chosen;  // [T*index_topk] as IndexerTopK leaves it; empty if every query sees all its keys
    std::span<float> max_logits;  // [H] the largest score of each head; empty unless LayerOptions ask for it
  };
  Saved Allocate(Arena& arena, DType compute, int64_t tokens, const LayerGroups& groups = OneRank()) const;

  // Expanded form, for training: y [T,D] F32 is added to.
  void Forward(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, View y, Saved& saved) const;
  // dy [T,D] compute dtype; dx [T,D] F32 is added to; adds to grad.
  void Backward(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& saved, ConstView dy, View dx, MlaParams& grad) const;
  // The indexer's loss against this layer's attention, a constant: over the chosen keys if sparse, else over all visible ones. Adds the
  // gradients of factor times its sum over tokens to grad.indexer and returns the sum.
  double LearnIndexer(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& saved, bool sparse, float factor,
                      MlaParams& grad) const;
  // For checks, after Forward and in a model with an indexer: the indexer's scores of one query [T] with the keys of one document that
  // begins at row 0, as many as there are scores, which are overwritten.
  void IndexerScores(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& saved, int64_t query,
                     std::span<float> scores) const;
  // For decoding: x [M,D] are rows of several sequences, whose latents are written to their places in the cache. A sequence's few tokens
  // take the absorbed form, many the expanded one unless ctx asks for arithmetic by row. y [M,D] F32 is added to.
  void ForwardCached(Ctx& ctx, const MlaParams& p, const CachedInputs& in, ConstView x, View y) const;

 private:
  void Queries(Ctx& ctx, const MlaParams& p, ConstView x, View q_low, View q_low_rstd, View q) const;
  ConstView NormedQueryLatent(Ctx& ctx, const MlaParams& p, ConstView q_low) const;
  struct Division {
    std::span<const Segment> dense, sparse;
  };
  Division Divide(Ctx& ctx, const TokenLayout& layout, bool sparse) const;
  bool IsSparse(const TokenLayout& layout) const;
  Indexer::Inputs IndexerInput(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& s) const;
  bool Choose(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, Saved& s) const;
  std::span<int32_t> ChooseCached(Ctx& ctx, const MlaParams& p, const Indexer::Inputs& input, const CachedInputs& in, View q) const;
  void RotateQueries(View q, std::span<const int32_t> positions, const RopeTable& rope, RopeDirection direction) const;
  void RotateKeys(View kv_low, std::span<const int32_t> positions, const RopeTable& rope, RopeDirection direction) const;
  void LatentsOfAll(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, View kv_low) const;
  void BackwardDense(Ctx& ctx, const ContextRows& rows, std::span<const Segment> segments, const MlaInputs& in, const MlaOutputs& out,
                     const MlaGradients& gradients) const;
  void BackwardQueries(Ctx& ctx, const MlaParams& p, const Saved& s, ConstView x, ConstView dq, View dx, MlaParams& grad) const;
  // The normed latent and what comes down to it: dkv from expanded keys and values, d_rows [T,R+Dr] from absorbed attention, unless empty.
  // dkv_low holds the rotated key's gradient already, the latent's is written beside it.
  struct LatentBackward {
    ConstView latent, dkv, d_rows;
    View dkv_low;
  };
  void BackwardLatent(Ctx& ctx, const MlaParams& p, const AttentionInputs& in, const Saved& s, const LatentBackward& d, View dx,
                      MlaParams& grad) const;
  View OwnRows(Ctx& ctx, const AttentionInputs& in, View all) const;
  void SumOverHeads(Ctx& ctx, View d_latent, View dk_rope) const;
  ConstView AllHeads(Ctx& ctx, ConstView x) const;
  bool IsExpanded(const Ctx& ctx, const CachedSegment& segment) const;
  bool MayShare(const Ctx& ctx, const CachedSegment& segment) const;
  void Expanded(Ctx& ctx, const MlaParams& p, std::span<const CachedSegment> segments, ConstView q, ConstView cache, View o) const;
  void AttendCached(Ctx& ctx, const MlaParams& p, const CachedInputs& in, std::span<const int32_t> chosen, ConstView q, View o) const;

  MlaShape shape_;
  RopePairs pairs_;
  int64_t q_rank_, kv_rank_;
  std::optional<Indexer> indexer_;
  ChosenForm chosen_form_;
  bool max_logits_;
  float eps_ = 1e-6f;  // of both inner norms; not rms_norm_eps (official code and transformers agree)
};

}  // namespace fathom

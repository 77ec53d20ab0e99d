// One decoder layer: h += MLA(norm(h)); h += FFN(norm(h)), FFN dense or mixture of experts.
#pragma once

#include <optional>

#include "fathom/layers/mla.h"
#include "fathom/layers/moe.h"

namespace fathom {

struct BlockParams {
  Weight input_layernorm, post_attention_layernorm;  // [D]
  MlaParams self_attn;
  MlpParams dense;  // of a dense layer
  MoeParams moe;    // of a MoE layer
};

// What stays in memory between forward and backward (MaxText's remat_policy): everything; all but what is cheap to compute again (norms,
// activations); only the layer's input.
enum class Remat { kNone, kMinimal, kFull };

class Block {
 public:
  Block(const ModelConfig& config, bool moe, const LayerOptions& options);
  struct Saved {
    View h_in, h_mid;               // [T,D] F32: the residual stream before attention and before the FFN
    View x_attention, x_ffn;        // [T,D] compute dtype: the normed inputs, kept only under Remat::kNone
    View rstd_attention, rstd_ffn;  // [T]
    Mla::Saved attention;
    Mlp::Saved dense;
    Moe::Saved moe;
  };
  Saved Allocate(Arena& arena, DType compute, int64_t tokens, bool keep_normed, const LayerGroups& groups = OneRank()) const;

  // h [T,D] F32 is updated in place.
  void Forward(Ctx& ctx, const BlockParams& p, const BlockInputs& inputs, View h, Saved& saved) const;
  // dh [T,D] F32 holds the gradient of the output and is turned into that of the input; adds to grad. The FFN overwrites its part of saved.
  void Backward(Ctx& ctx, const BlockParams& p, const BlockInputs& inputs, Saved& saved, ConstView d_scores, View dh,
                BlockParams& grad) const;
  // See Mla::LearnIndexer.
  double LearnIndexer(Ctx& ctx, const BlockParams& p, const BlockInputs& inputs, const Saved& saved, bool sparse, float factor,
                      BlockParams& grad) const;
  // See Mla::IndexerScores.
  void IndexerScores(Ctx& ctx, const BlockParams& p, const BlockInputs& inputs, const Saved& saved, int64_t query,
                     std::span<float> scores) const;
  // For decoding, see Mla::ForwardCached.
  void ForwardCached(Ctx& ctx, const BlockParams& p, const CachedInputs& in, View h) const;

  int64_t hidden() const { return hidden_; }
  bool is_moe() const { return moe_.has_value(); }
  const Moe& moe() const { return *moe_; }
  const Mla& attention() const { return attention_; }

 private:
  ConstView AttentionInput(Ctx& ctx, const BlockParams& p, const Saved& s) const;
  ConstView Normed(Ctx& ctx, ConstView h, const Weight& w, View kept, View rstd) const;
  void FeedForward(Ctx& ctx, const BlockParams& p, int64_t sequence, ConstView x, View h, Mlp::Saved* dense, Moe::Saved& moe) const;

  int64_t hidden_;
  float eps_;
  Mla attention_;
  std::optional<Mlp> dense_;
  std::optional<Moe> moe_;
};

}  // namespace fathom

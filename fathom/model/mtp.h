// Multi-token prediction (DeepSeek-V3 report, section 2.2; docs/layers/mtp.md): one module. At position t module k joins the state of the
// model below it with the embedding of token t+k, passes both through a layer of its own and predicts token t+k+1.
#pragma once

#include "fathom/layers/head.h"
#include "fathom/model/params.h"
#include "fathom/model/remat.h"
#include "fathom/model/token_batch.h"

namespace fathom {

// The module's own norm and head; the embedding and head may be the main model's memory (ShareEmbeddingAndHead).
inline HeadParams HeadOf(const MtpParams& p) { return {p.shared_head_norm, p.shared_head_head}; }
inline HeadGrads HeadOf(MtpParams& grad) { return {grad.shared_head_norm, grad.shared_head_head}; }

class Mtp {
 public:
  // layer: the module's index in the checkpoint, num_hidden_layers + k - 1.
  Mtp(const ModelConfig& config, int64_t layer, const LayerOptions& options);
  struct Saved {
    View rstd_embedding, rstd_state;  // [T]
    Block::Saved block;
    View h;  // [T,D] F32 the residual stream after the layer
  };
  Saved Allocate(Arena& arena, DType compute, int64_t tokens, Remat remat, const LayerGroups& groups = OneRank()) const;

  struct Inputs {
    std::span<const int32_t> ids;  // [T] token t+k at each position
    ConstView state;               // [T,D] F32
    BlockInputs block;
    Remat remat;
  };
  // Fills saved; saved.h is the result.
  void Forward(Ctx& ctx, const MtpParams& p, const Inputs& in, Saved& saved) const;
  struct Gradients {
    View dh;       // [T,D] F32: on saved.h; used up
    View d_state;  // [T,D] F32: overwritten
  };
  // saved is used up; adds to grad.
  void Backward(Ctx& ctx, const MtpParams& p, const Inputs& in, const LayerTerms& terms, Saved& saved, const Gradients& d,
                MtpParams& grad) const;
  // For drafting: rows past..past+M of one sequence are appended to the cache. h [M,D] F32 is overwritten with the residual stream.
  void ForwardCached(Ctx& ctx, const MtpParams& p, std::span<const int32_t> ids, const CachedInputs& in, ConstView state, View h) const;

  const Block& block() const { return block_; }
  int64_t layer() const { return layer_; }

 private:
  View Join(Ctx& ctx, const MtpParams& p, std::span<const int32_t> ids, ConstView state, View rstd_embedding, View rstd_state) const;

  int64_t layer_, hidden_;
  float eps_;
  Block block_;
};

}  // namespace fathom

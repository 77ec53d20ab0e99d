// Mixture of experts (DeepSeek-V2 report 2.2, V3 report 2.1.2): routed experts on tokens sorted by expert, plus shared experts.
// The router's weight multiplies the expert's hidden vector, before its down projection (docs/layers/router_moe.md).
#pragma once

#include <vector>

#include "fathom/config/model_config.h"
#include "fathom/kernels/moe/router.h"
#include "fathom/layers/mlp.h"
#include "fathom/layers/options.h"
#include "fathom/layers/row_exchange.h"

namespace fathom {

struct MoeParams {
  Weight gate;                     // [E,D]
  Weight e_score_correction_bias;  // [E] F32; empty unless noaux_tc
  std::vector<MlpParams> experts;
  MlpParams shared_experts;
};

RouterShape RouterShapeOf(const ModelConfig& config);

class Moe {
 public:
  Moe(const ModelConfig& config, const LayerOptions& options);
  struct Saved {
    View scores;                     // [T,E] F32, before the bias
    std::span<int32_t> ids;          // [T*K] chosen experts, a constant for backward
    std::span<float> weights;        // [T*K]
    std::span<int32_t> slot_expert;  // [T*S] what runs: ids, or every expert, or -1 for what was dropped; S slots per token
    std::span<float> slot_weight;    // [T*S]
    std::span<int64_t> begin;        // [E+1] rows of each expert
    std::span<int32_t> row_token, row_slot, slot_row;  // [T*S] each
    HeldRows held;                                     // of several ranks' rows, those of this rank's experts
    View gate, up;                                     // [T*S,F] compute dtype; with n ranks room for the rows of all
    Mlp::Saved shared;
  };
  Saved Allocate(Arena& arena, DType compute, int64_t tokens, const LayerGroups& groups = OneRank()) const;

  // Ranks of groups.expert have E/n experts each; p.experts has the others' as empty slots. Where they have the same tokens, y gets the
  // part of this rank's experts, and the first rank's shared ones. x [T,D] compute dtype; y [T,D] F32 is added to. saved is filled; without
  // a backward it may lie in the caller's scratch. The capacity of an expert is one of each sequence: of each `sequence` tokens (0: of
  // all), those of all ranks that share it.
  void Forward(Ctx& ctx, const MoeParams& p, int64_t sequence, ConstView x, View y, Saved& saved) const;
  // What comes from above.
  struct Cotangent {
    ConstView dy;        // [T,D] compute dtype
    ConstView d_scores;  // [T,E] F32, unless empty: a balance loss's gradient on the scores
  };
  // dx [T,D] F32 is added to; adds to grad. saved's gate and up are overwritten by their gradients.
  void Backward(Ctx& ctx, const MoeParams& p, Saved& saved, ConstView x, const Cotangent& d, View dx, MoeParams& grad) const;

  const RouterShape& router() const { return router_; }
  // Rows of expert work per token.
  int64_t slots() const { return run_.kind == ExpertRun::kDense ? router_.experts : router_.chosen; }

 private:
  void Route(Ctx& ctx, const MoeParams& p, int64_t sequence, ConstView x, Saved& s) const;
  void FillSlots(Ctx& ctx, int64_t sequence, Saved& s) const;
  void FillWithinCapacity(Ctx& ctx, int64_t sequence, Saved& s) const;
  void DropByCapacity(Ctx& ctx, int64_t sequence, std::span<int32_t> slots) const;
  // Stands for the router while memory is counted: as many rows as can be, on few experts, so that products with many and with few rows
  // both take part.
  void PlanRows(Ctx& ctx, int64_t sequence, Saved& s) const;
  // Drops the rows of other ranks' experts.
  void KeepHeld(Ctx& ctx, Saved& s) const;
  std::span<const float> ChosenOf(Ctx& ctx, const Saved& s, std::span<const float> slots) const;
  struct BackwardPass {
    const MoeParams& p;
    Saved& s;
    ConstView x;
    View dx;
    MoeParams& grad;
  };
  // Overwrites d_slots [T*S], the gradient on the slots' weights.
  void BackwardExperts(Ctx& ctx, const BackwardPass& pass, ConstView dy, std::span<float> d_slots) const;
  void BackwardRouter(Ctx& ctx, const BackwardPass& pass, std::span<const float> d_weights, ConstView d_scores) const;

  RouterShape router_;
  ExpertRun run_;
  LayerFaults faults_;
  int64_t hidden_, width_;
  Mlp shared_;
};

}  // namespace fathom

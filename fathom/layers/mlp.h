// SwiGLU MLP: y = down( silu(gate(x)) * up(x) ). docs/layers/swiglu_mlp.md.
#pragma once

#include "fathom/layers/context.h"

namespace fathom {

struct MlpParams {
  Weight gate_proj, up_proj, down_proj;  // [F,D], [F,D], [D,F]
};

class Mlp {
 public:
  explicit Mlp(int64_t width) : width_(width) {}
  struct Saved {
    View gate, up;  // [T,F] compute dtype
  };
  Saved Allocate(Arena& arena, DType compute, int64_t tokens) const;

  // x [T,D] compute dtype; y [T,D] F32 is added to. saved == nullptr: inference.
  void Forward(Ctx& ctx, const MlpParams& p, ConstView x, View y, Saved* saved) const;
  // Its two parts: overwrites saved's gate and up; then adds to y. hidden [T,F] compute dtype is overwritten, and may be saved.gate.
  void ForwardBranches(Ctx& ctx, const MlpParams& p, ConstView x, const Saved& saved) const;
  void ForwardDown(Ctx& ctx, const MlpParams& p, const Saved& saved, View hidden, View y) const;
  // dy [T,D] compute dtype; dx [T,D] F32 is added to; adds to grad. saved is overwritten by the gradients of gate and up.
  void Backward(Ctx& ctx, const MlpParams& p, Saved& saved, ConstView x, ConstView dy, View dx, MlpParams& grad) const;

 private:
  int64_t width_;
};

}  // namespace fathom

#include "fathom/layers/mlp.h"

#include "fathom/base/trace.h"
#include "fathom/kernels/elementwise/swiglu.h"
#include "fathom/layers/linear.h"
#include "fathom/tensor/traced_bytes.h"

namespace fathom {

Mlp::Saved Mlp::Allocate(Arena& arena, DType compute, int64_t tokens) const {
  return {arena.Alloc(compute, {tokens, width_}), arena.Alloc(compute, {tokens, width_})};
}

void Mlp::ForwardBranches(Ctx& ctx, const MlpParams& p, ConstView x, const Saved& s) const {
  LinearForward(ctx, p.gate_proj, x, s.gate);
  LinearForward(ctx, p.up_proj, x, s.up);
}

void Mlp::ForwardDown(Ctx& ctx, const MlpParams& p, const Saved& s, View hidden, View y) const {
  {
    TraceSlice slice("swiglu");
    AddBytes(slice, {s.gate, s.up, hidden});
    SwigluForward(s.gate, s.up, {}, hidden);
  }
  LinearForward(ctx, p.down_proj, hidden, y, Write::kAdd);
}

void Mlp::Forward(Ctx& ctx, const MlpParams& p, ConstView x, View y, Saved* saved) const {
  ArenaScope scope(ctx.scratch);
  const Saved s = saved ? *saved : Allocate(ctx.scratch, ctx.compute, x.dim(0));
  ForwardBranches(ctx, p, x, s);
  ForwardDown(ctx, p, s, saved ? ctx.scratch.Alloc(ctx.compute, s.gate.shape()) : s.gate, y);
}

void Mlp::Backward(Ctx& ctx, const MlpParams& p, Saved& s, ConstView x, ConstView dy, View dx, MlpParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const View hidden = ctx.scratch.Alloc(ctx.compute, s.gate.shape());
  {
    TraceSlice slice("swiglu");
    AddBytes(slice, {s.gate, s.up, hidden});
    SwigluForward(s.gate, s.up, {}, hidden);
  }
  const View d_hidden = ctx.scratch.Alloc(ctx.compute, s.gate.shape());
  LinearBackward(ctx, p.down_proj, hidden, dy, d_hidden, Write::kOverwrite, grad.down_proj);
  {
    TraceSlice slice("swiglu's gradient");
    AddBytes(slice, {d_hidden, s.gate, s.gate, s.up, s.up});
    SwigluBackward(d_hidden, s.gate, s.up, {}, s.gate, s.up, {});  // the saved branches are not needed after this
  }
  LinearBackward(ctx, p.gate_proj, x, s.gate, dx, Write::kAdd, grad.gate_proj);
  LinearBackward(ctx, p.up_proj, x, s.up, dx, Write::kAdd, grad.up_proj);
}

}  // namespace fathom

#include "fathom/layers/adapter.h"

#include <algorithm>

#include "fathom/base/threads.h"
#include "fathom/kernels/gemm/gemm_panel.h"

namespace fathom {
namespace {

// f z in the compute dtype, z [M,r] the product's F32 result: what enters the next product.
ConstView Scaled(Ctx& ctx, double factor, View z) {
  Scale(static_cast<float>(factor), z);
  return AsCompute(ctx, z);
}

// f x A^T [M,r].
ConstView Down(Ctx& ctx, const LowRank& adapter, ConstView x) {
  const View z = ctx.scratch.Alloc(DType::kF32, {x.dim(0), adapter.a.dim(0)});
  MatMulNT(x, {adapter.a.view(), {}}, z, Write::kOverwrite, ctx.scratch, ctx.arithmetic);
  return Scaled(ctx, adapter.factor, z);
}

// f dy B [M,r].
ConstView Up(Ctx& ctx, const LowRank& adapter, ConstView dy) {
  const View z = ctx.scratch.Alloc(DType::kF32, {dy.dim(0), adapter.b.dim(1)});
  MatMulNN(dy, {adapter.b.view(), {}}, z, Write::kOverwrite, ctx.scratch);
  return Scaled(ctx, adapter.factor, z);
}

// f(e, begin, end) for every expert that has an adapter and rows.
template <class F>
void ForAdapters(Ctx& ctx, Experts w, std::span<const int64_t> begin, const F& f) {
  for (size_t e = 0; e < w.size(); ++e) {
    if (!w[e]->adapter || begin[e] == begin[e + 1]) continue;
    ArenaScope scope(ctx.scratch);
    f(e, begin[e], begin[e + 1]);
  }
}

}  // namespace

void AdapterForward(Ctx& ctx, const LowRank& adapter, ConstView x, View y) {
  ArenaScope scope(ctx.scratch);
  MatMulNT(Down(ctx, adapter, x), {adapter.b.view(), {}}, y, Write::kAdd, ctx.scratch, ctx.arithmetic);
}

void AdapterBackward(Ctx& ctx, const LowRank& adapter, ConstView x, ConstView dy, View dx, LowRank* grad) {
  ArenaScope scope(ctx.scratch);
  const ConstView u = Up(ctx, adapter, dy);
  if (grad != nullptr) {
    MatMulTN(u, x, grad->a.mutable_view(), Write::kAdd, ctx.scratch);
    MatMulTN(dy, Down(ctx, adapter, x), grad->b.mutable_view(), Write::kAdd, ctx.scratch);
  }
  if (!dx.empty()) MatMulNN(u, {adapter.a.view(), {}}, dx, Write::kAdd, ctx.scratch);
}

void AdaptersForward(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, View y) {
  ForAdapters(ctx, w, begin,
              [&](size_t e, int64_t from, int64_t to) { AdapterForward(ctx, *w[e]->adapter, x.Rows(from, to), y.Rows(from, to)); });
}

void AdaptersBackwardInput(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView dy, View dx) {
  ForAdapters(ctx, w, begin, [&](size_t e, int64_t from, int64_t to) {
    const LowRank& adapter = *w[e]->adapter;
    MatMulNN(Up(ctx, adapter, dy.Rows(from, to)), {adapter.a.view(), {}}, dx.Rows(from, to), Write::kAdd, ctx.scratch);
  });
}

void AdaptersBackwardWeight(Ctx& ctx, Experts w, std::span<const int64_t> begin, ConstView x, ConstView dy,
                            std::span<Weight* const> grads) {
  ForAdapters(ctx, w, begin, [&](size_t e, int64_t from, int64_t to) {
    AdapterBackward(ctx, *w[e]->adapter, x.Rows(from, to), dy.Rows(from, to), {}, grads[e]->adapter.get());
  });
}

View MergedWeight(Ctx& ctx, const Weight& w) {
  const View merged = ctx.scratch.Alloc(DType::kF32, w.value.shape());
  if (w.scale_inv.empty()) {
    Cast(w.value.view(), merged);
  } else {
    ParallelRanges((merged.dim(0) + kScaleBlock - 1) / kScaleBlock, 1, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kScaleBlock, last = std::min(merged.dim(0), end * kScaleBlock);
      WidenPanel(w, {first, last - first, 0, merged.dim(1)}, false, merged.row<float>(first));
    });
  }
  if (!w.adapter) return merged;
  ArenaScope scope(ctx.scratch);
  const View b = ctx.scratch.Alloc(DType::kF32, w.adapter->b.shape());
  Cast(w.adapter->b.view(), b);
  Scale(static_cast<float>(w.adapter->factor), b);
  MatMulNN(b, {w.adapter->a.view(), {}}, merged, Write::kAdd, ctx.scratch);
  return merged;
}

void AddMergedGradient(Ctx& ctx, const Weight& w, ConstView dw, Weight& grad) {
  if (!grad.value.empty()) AddScaled(1, dw, grad.value.mutable_view());
  if (!grad.adapter) return;
  ArenaScope scope(ctx.scratch);
  const View scaled = ctx.scratch.Alloc(DType::kF32, dw.shape());
  Cast(dw, scaled);
  Scale(static_cast<float>(w.adapter->factor), scaled);
  MatMulNT(scaled, {w.adapter->a.view(), {}}, grad.adapter->b.mutable_view(), Write::kAdd, ctx.scratch);
  MatMulTN(w.adapter->b.view(), scaled, grad.adapter->a.mutable_view(), Write::kAdd, ctx.scratch);
}

}  // namespace fathom

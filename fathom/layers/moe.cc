#include "fathom/layers/moe.h"

#include <memory>

#include "fathom/kernels/moe_dispatch.h"
#include "fathom/kernels/swiglu.h"
#include "fathom/layers/linear.h"

namespace fathom {
namespace {

template <class T>
std::span<T> AllocSpan(Arena& arena, int64_t n) {
  return {arena.AllocArray<T>(n), static_cast<size_t>(arena.counting() ? 0 : n)};
}

// One matrix of every expert, in scratch.
std::span<const WeightView> Views(Ctx& ctx, const std::vector<MlpParams>& experts, Weight MlpParams::*matrix) {
  const std::span<WeightView> views = AllocSpan<WeightView>(ctx.scratch, static_cast<int64_t>(experts.size()));
  for (size_t e = 0; e < experts.size(); ++e) std::construct_at(&views[e], (experts[e].*matrix).view());
  return views;
}

// Adds dy^T x of every expert to its gradient, unless the experts are frozen.
void AddGradients(Ctx& ctx, ConstView dy, ConstView x, std::span<const int64_t> begin, std::vector<MlpParams>& experts, Weight MlpParams::*matrix) {
  if ((experts[0].*matrix).value.empty()) return;
  const std::span<View> views = AllocSpan<View>(ctx.scratch, static_cast<int64_t>(experts.size()));
  for (size_t e = 0; e < experts.size(); ++e) std::construct_at(&views[e], (experts[e].*matrix).value.mutable_view());
  GroupedMatMulTN(dy, x, begin, views, Write::kAdd, ctx.scratch);
}

std::span<const float> BiasOf(const MoeParams& p) {
  const Tensor& b = p.e_score_correction_bias.value;
  if (b.empty()) return {};
  return {b.data<float>(), static_cast<size_t>(b.NumElements())};
}

}  // namespace

RouterShape RouterShapeOf(const ModelConfig& c) {
  RouterShape s{.experts = c.n_routed_experts, .chosen = c.num_experts_per_tok};
  const bool grouped = c.topk_method != TopkMethod::kGreedy;
  s.groups = grouped ? c.n_group : 1;
  s.kept_groups = grouped ? c.topk_group : 1;
  s.sigmoid = c.scoring_func == ScoringFunc::kSigmoid;
  s.group_top2 = c.topk_method == TopkMethod::kNoauxTc;
  s.normalize = c.norm_topk_prob && c.num_experts_per_tok > 1;
  s.scaling = static_cast<float>(c.routed_scaling_factor);
  return s;
}

Moe::Moe(const ModelConfig& c)
    : router_(RouterShapeOf(c)), hidden_(c.hidden_size), width_(c.moe_intermediate_size), shared_(c.moe_intermediate_size * c.n_shared_experts) {}

Moe::Saved Moe::Allocate(Arena& arena, DType compute, int64_t tokens) const {
  const int64_t rows = tokens * router_.chosen;
  Saved s;
  s.scores = arena.Alloc(DType::kF32, {tokens, router_.experts});
  s.ids = AllocSpan<int32_t>(arena, rows);
  s.weights = AllocSpan<float>(arena, rows);
  s.begin = AllocSpan<int64_t>(arena, router_.experts + 1);
  s.row_token = AllocSpan<int32_t>(arena, rows);
  s.row_slot = AllocSpan<int32_t>(arena, rows);
  s.slot_row = AllocSpan<int32_t>(arena, rows);
  s.gate = arena.Alloc(compute, {rows, width_});
  s.up = arena.Alloc(compute, {rows, width_});
  s.shared = shared_.Allocate(arena, compute, tokens);
  return s;
}

void Moe::Route(Ctx& ctx, const MoeParams& p, ConstView x, Saved& s) const {
  ArenaScope scope(ctx.scratch);
  const View logits = ctx.scratch.Alloc(DType::kF32, s.scores.shape());
  LinearForward(ctx, p.gate, AsF32(ctx, x), logits);
  RouterForward(router_, logits, BiasOf(p), s.scores, s.ids, s.weights);
  BuildDispatch(s.ids, router_.chosen, router_.experts, s.begin, s.row_token, s.row_slot, s.slot_row);
}

void Moe::Forward(Ctx& ctx, const MoeParams& p, ConstView x, View y, Saved& s) const {
  Route(ctx, p, x, s);
  ArenaScope scope(ctx.scratch);
  const int64_t rows = s.gate.dim(0);
  const View inputs = ctx.scratch.Alloc(ctx.compute, {rows, hidden_});
  GatherRows(x, s.row_token, inputs);
  GroupedMatMulNT(inputs, s.begin, Views(ctx, p.experts, &MlpParams::gate_proj), s.gate, Write::kOverwrite, ctx.scratch);
  GroupedMatMulNT(inputs, s.begin, Views(ctx, p.experts, &MlpParams::up_proj), s.up, Write::kOverwrite, ctx.scratch);
  const std::span<float> row_weight = AllocSpan<float>(ctx.scratch, rows);
  GatherSlots(s.weights, s.row_slot, row_weight);
  const View hidden = ctx.scratch.Alloc(ctx.compute, {rows, width_});
  SwigluForward(s.gate, s.up, row_weight, hidden);
  const View outputs = inputs;  // the gathered inputs are not needed any more
  GroupedMatMulNT(hidden, s.begin, Views(ctx, p.experts, &MlpParams::down_proj), outputs, Write::kOverwrite, ctx.scratch);
  CombineRows(outputs, s.slot_row, router_.chosen, y, true);
  if (!p.shared_experts.gate_proj.value.empty()) shared_.Forward(ctx, p.shared_experts, x, y, &s.shared);
}

void Moe::BackwardExperts(Ctx& ctx, const MoeParams& p, const Saved& s, ConstView x, ConstView dy, View dx, std::span<float> d_weights, MoeParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const int64_t rows = s.gate.dim(0);
  const std::span<float> row_weight = AllocSpan<float>(ctx.scratch, rows);
  GatherSlots(s.weights, s.row_slot, row_weight);
  const View wide = ctx.scratch.Alloc(ctx.compute, {rows, hidden_});
  const View hidden = ctx.scratch.Alloc(ctx.compute, {rows, width_});
  const View d_hidden = ctx.scratch.Alloc(ctx.compute, {rows, width_});
  GatherRows(dy, s.row_token, wide);
  SwigluForward(s.gate, s.up, row_weight, hidden);
  GroupedMatMulNN(wide, s.begin, Views(ctx, p.experts, &MlpParams::down_proj), d_hidden, Write::kOverwrite, ctx.scratch);
  AddGradients(ctx, wide, hidden, s.begin, grad.experts, &MlpParams::down_proj);
  const std::span<float> d_row_weight = AllocSpan<float>(ctx.scratch, rows);
  SwigluBackward(d_hidden, s.gate, s.up, row_weight, s.gate, s.up, d_row_weight);  // the saved branches are not needed after this
  ScatterSlots(d_row_weight, s.row_slot, d_weights);
  GatherRows(x, s.row_token, wide);
  AddGradients(ctx, s.gate, wide, s.begin, grad.experts, &MlpParams::gate_proj);
  AddGradients(ctx, s.up, wide, s.begin, grad.experts, &MlpParams::up_proj);
  GroupedMatMulNN(s.gate, s.begin, Views(ctx, p.experts, &MlpParams::gate_proj), wide, Write::kOverwrite, ctx.scratch);
  GroupedMatMulNN(s.up, s.begin, Views(ctx, p.experts, &MlpParams::up_proj), wide, Write::kAdd, ctx.scratch);
  CombineRows(wide, s.slot_row, router_.chosen, dx, true);
}

void Moe::BackwardRouter(Ctx& ctx, const MoeParams& p, const Saved& s, ConstView x, std::span<const float> d_weights, ConstView d_scores, View dx,
                         MoeParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const View d_logits = ctx.scratch.Alloc(DType::kF32, s.scores.shape());
  RouterBackward(router_, s.scores, s.ids, d_weights, d_scores, d_logits);
  LinearBackward(ctx, p.gate, AsF32(ctx, x), d_logits, dx, Write::kAdd, grad.gate);
}

void Moe::Backward(Ctx& ctx, const MoeParams& p, const Saved& s, ConstView x, ConstView dy, ConstView d_scores, View dx, MoeParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const std::span<float> d_weights = AllocSpan<float>(ctx.scratch, static_cast<int64_t>(s.weights.size()));
  BackwardExperts(ctx, p, s, x, dy, dx, d_weights, grad);
  BackwardRouter(ctx, p, s, x, d_weights, d_scores, dx, grad);
  if (!p.shared_experts.gate_proj.value.empty()) shared_.Backward(ctx, p.shared_experts, s.shared, x, dy, dx, grad.shared_experts);
}

}  // namespace fathom

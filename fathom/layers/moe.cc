#include "fathom/layers/moe.h"

#include <algorithm>
#include <type_traits>

#include "fathom/config/model_sizes.h"
#include "fathom/kernels/elementwise/swiglu.h"
#include "fathom/kernels/gemm/gemm_tiles.h"
#include "fathom/kernels/moe/moe_dispatch.h"
#include "fathom/layers/linear.h"
#include "fathom/layers/router_choice.h"

namespace fathom {
namespace {

// One matrix of every expert, in scratch.
template <class Params, class W = std::conditional_t<std::is_const_v<Params>, const Weight, Weight>>
std::span<W* const> MatricesOf(Ctx& ctx, Params& experts, Weight MlpParams::*matrix) {
  const std::span<W*> weights = ctx.scratch.AllocSpan<W*>(static_cast<int64_t>(experts.size()));
  for (size_t e = 0; e < experts.size(); ++e) weights[e] = &(experts[e].*matrix);
  return weights;
}

// The rows that experts run on: as many as slots, but for the dropped ones.
struct Rows {
  explicit Rows(Moe::Saved& s)
      : count(s.begin.back()),
        token(s.row_token.first(static_cast<size_t>(count))),
        slot(s.row_slot.first(static_cast<size_t>(count))),
        gate(s.gate.Rows(0, count)),
        up(s.up.Rows(0, count)) {}
  int64_t count;
  std::span<const int32_t> token, slot;
  View gate, up;
};

std::span<const float> BiasOf(const MoeParams& p) {
  const Tensor& b = p.e_score_correction_bias.value;
  if (b.empty()) return {};
  return {b.data<float>(), static_cast<size_t>(b.NumElements())};
}

}  // namespace

static_assert(kMostExperts <= kMaxExperts && kMostExperts <= kMostProducts, "config.json may ask for what the kernels cannot do");

RouterShape RouterShapeOf(const ModelConfig& c) {
  RouterShape s{.experts = c.n_routed_experts, .chosen = c.num_experts_per_tok};
  const bool grouped = c.topk_method != TopkMethod::kGreedy;
  s.groups = grouped ? c.n_group : 1;
  s.kept_groups = grouped ? c.topk_group : 1;
  s.sigmoid = c.scoring_func == ScoringFunc::kSigmoid;
  s.group_top2 = c.topk_method == TopkMethod::kNoauxTc;
  s.normalize = c.norm_topk_prob && (s.sigmoid || c.num_experts_per_tok > 1);  // V2's own code leaves a single softmax weight alone
  s.scaling = static_cast<float>(c.routed_scaling_factor);
  return s;
}

Moe::Moe(const ModelConfig& c, const LayerOptions& options)
    : router_(RouterShapeOf(c)),
      run_(options.experts),
      faults_(options.faults),
      hidden_(c.hidden_size),
      width_(c.moe_intermediate_size),
      shared_(c.moe_intermediate_size * c.n_shared_experts) {}

Moe::Saved Moe::Allocate(Arena& arena, DType compute, int64_t tokens) const {
  const int64_t rows = tokens * slots(), choices = tokens * router_.chosen;
  Saved s;
  s.scores = arena.Alloc(DType::kF32, {tokens, router_.experts});
  s.ids = arena.AllocSpan<int32_t>(choices);
  s.weights = arena.AllocSpan<float>(choices);
  const bool own_slots = run_.kind != ExpertRun::kSorted;
  s.slot_expert = own_slots ? arena.AllocSpan<int32_t>(rows) : s.ids;
  s.slot_weight = own_slots ? arena.AllocSpan<float>(rows) : s.weights;
  s.begin = arena.AllocSpan<int64_t>(router_.experts + 1);
  s.row_token = arena.AllocSpan<int32_t>(rows);
  s.row_slot = arena.AllocSpan<int32_t>(rows);
  s.slot_row = arena.AllocSpan<int32_t>(rows);
  s.gate = arena.Alloc(compute, {rows, width_});
  s.up = arena.Alloc(compute, {rows, width_});
  s.shared = shared_.Allocate(arena, compute, tokens);
  return s;
}

// What the router chose, as slots of this kind of run.
void Moe::FillSlots(Ctx& ctx, int64_t sequence, Saved& s) const {
  const int64_t tokens = s.scores.dim(0), k = router_.chosen, e = router_.experts;
  if (run_.kind == ExpertRun::kDense) {
    for (int64_t i = 0; i < tokens * e; ++i) s.slot_expert[static_cast<size_t>(i)] = static_cast<int32_t>(i % e);
    std::ranges::fill(s.slot_weight, 0.0f);
    for (int64_t i = 0; i < tokens * k; ++i) {
      const auto at = static_cast<size_t>(i);
      s.slot_weight[static_cast<size_t>(i / k * e + s.ids[at])] = s.weights[at];
    }
  } else if (run_.kind == ExpertRun::kCapacity) {
    std::ranges::copy(s.ids, s.slot_expert.begin());
    std::ranges::copy(s.weights, s.slot_weight.begin());
    const int64_t length = sequence > 0 ? sequence : tokens;
    const std::span<int64_t> work = ctx.scratch.AllocSpan<int64_t>(e);
    for (int64_t t = 0; t < tokens; t += length) {
      const int64_t n = std::min(length, tokens - t), capacity = ExpertCapacity(n, k, e, run_.capacity_factor);
      DropOverCapacity(capacity, s.slot_expert.subspan(static_cast<size_t>(t * k), static_cast<size_t>(n * k)), work);
    }
  }
}

// The chosen experts' values [T*K] among those of all slots [T*S].
std::span<const float> Moe::ChosenOf(Ctx& ctx, const Saved& s, std::span<const float> slots) const {
  if (run_.kind != ExpertRun::kDense) return slots;
  const std::span<float> chosen = ctx.scratch.AllocSpan<float>(std::ssize(s.ids));
  for (size_t i = 0; i < chosen.size(); ++i) {
    chosen[i] = slots[i / static_cast<size_t>(router_.chosen) * static_cast<size_t>(router_.experts) + static_cast<size_t>(s.ids[i])];
  }
  return chosen;
}

void Moe::PlanRows(int64_t sequence, Saved& s) const {
  const int64_t tokens = s.scores.dim(0), length = sequence > 0 ? std::min(sequence, tokens) : tokens;
  int64_t each = tokens;
  if (run_.kind == ExpertRun::kCapacity) {
    const int64_t capacity = ExpertCapacity(length, router_.chosen, router_.experts, run_.capacity_factor);
    each = std::min(tokens, capacity * ((tokens + length - 1) / length));
  }
  for (size_t e = 0; e < s.begin.size(); ++e) s.begin[e] = std::min(static_cast<int64_t>(e) * each, tokens * slots());
}

void Moe::Route(Ctx& ctx, const MoeParams& p, int64_t sequence, ConstView x, Saved& s) const {
  ArenaScope scope(ctx.scratch);
  const View logits = ctx.scratch.Alloc(DType::kF32, s.scores.shape());
  ExactLinearForward(ctx, p.gate, AsF32(ctx, x), logits);
  RouterForward(router_, logits, BiasOf(p), s.scores, s.ids, s.weights);
  if (ctx.scratch.counting()) return PlanRows(sequence, s);
  ApplyRoutingFaults(faults_, router_, s.scores, BiasOf(p), s.ids, s.weights);
  FillSlots(ctx, sequence, s);
  BuildDispatch(s.slot_expert, slots(), router_.experts, s.begin, s.row_token, s.row_slot, s.slot_row);
}

void Moe::Forward(Ctx& ctx, const MoeParams& p, int64_t sequence, ConstView x, View y, Saved& s) const {
  Route(ctx, p, sequence, x, s);
  ArenaScope scope(ctx.scratch);
  const Rows rows(s);
  const View inputs = ctx.scratch.Alloc(ctx.compute, {rows.count, hidden_});
  GatherRows(x, rows.token, inputs);
  ExpertsForward(ctx, MatricesOf(ctx, p.experts, &MlpParams::gate_proj), s.begin, inputs, rows.gate);
  ExpertsForward(ctx, MatricesOf(ctx, p.experts, &MlpParams::up_proj), s.begin, inputs, rows.up);
  const std::span<float> row_weight = ctx.scratch.AllocSpan<float>(rows.count);
  GatherSlots(s.slot_weight, rows.slot, row_weight);
  const View hidden = ctx.scratch.Alloc(ctx.compute, {rows.count, width_});
  SwigluForward(rows.gate, rows.up, row_weight, hidden);
  const View outputs = inputs;  // the gathered inputs are not needed any more
  ExpertsForward(ctx, MatricesOf(ctx, p.experts, &MlpParams::down_proj), s.begin, hidden, outputs);
  CombineRows(outputs, s.slot_row, slots(), y, true);
  if (!p.shared_experts.gate_proj.value.empty()) shared_.Forward(ctx, p.shared_experts, x, y, &s.shared);
}

void Moe::BackwardExperts(Ctx& ctx, const BackwardPass& pass, ConstView dy, std::span<float> d_slots) const {
  ArenaScope scope(ctx.scratch);
  const MoeParams& p = pass.p;
  MoeParams& grad = pass.grad;
  Saved& s = pass.s;
  const Rows rows(s);
  const std::span<float> row_weight = ctx.scratch.AllocSpan<float>(rows.count);
  GatherSlots(s.slot_weight, rows.slot, row_weight);
  const View wide = ctx.scratch.Alloc(ctx.compute, {rows.count, hidden_});
  const View hidden = ctx.scratch.Alloc(ctx.compute, {rows.count, width_});
  const View d_hidden = ctx.scratch.Alloc(ctx.compute, {rows.count, width_});
  const auto add_gradients = [&](Weight MlpParams::*matrix, ConstView in, ConstView d_out) {
    ExpertsBackwardWeight(ctx, MatricesOf(ctx, p.experts, matrix), s.begin, in, d_out, MatricesOf(ctx, grad.experts, matrix));
  };
  GatherRows(dy, rows.token, wide);
  SwigluForward(rows.gate, rows.up, row_weight, hidden);
  ExpertsBackwardInput(ctx, MatricesOf(ctx, p.experts, &MlpParams::down_proj), s.begin, wide, d_hidden, Write::kOverwrite);
  add_gradients(&MlpParams::down_proj, hidden, wide);
  const std::span<float> d_row_weight = ctx.scratch.AllocSpan<float>(rows.count);
  SwigluBackward(d_hidden, rows.gate, rows.up, row_weight, rows.gate, rows.up,
                 d_row_weight);      // the saved branches are not needed after this
  std::ranges::fill(d_slots, 0.0f);  // of dropped ones
  ScatterSlots(d_row_weight, rows.slot, d_slots);
  GatherRows(pass.x, rows.token, wide);
  add_gradients(&MlpParams::gate_proj, wide, rows.gate);
  add_gradients(&MlpParams::up_proj, wide, rows.up);
  ExpertsBackwardInput(ctx, MatricesOf(ctx, p.experts, &MlpParams::gate_proj), s.begin, rows.gate, wide, Write::kOverwrite);
  ExpertsBackwardInput(ctx, MatricesOf(ctx, p.experts, &MlpParams::up_proj), s.begin, rows.up, wide, Write::kAdd);
  CombineRows(wide, s.slot_row, slots(), pass.dx, true);
}

void Moe::BackwardRouter(Ctx& ctx, const BackwardPass& pass, std::span<const float> d_weights, ConstView d_scores) const {
  ArenaScope scope(ctx.scratch);
  const View d_logits = ctx.scratch.Alloc(DType::kF32, pass.s.scores.shape());
  RouterBackward(router_, pass.s.scores, pass.s.ids, d_weights, d_scores, d_logits);
  ExactLinearBackward(ctx, pass.p.gate, AsF32(ctx, pass.x), d_logits, pass.dx, Write::kAdd, pass.grad.gate);
}

void Moe::Backward(Ctx& ctx, const MoeParams& p, Saved& s, ConstView x, const Cotangent& d, View dx, MoeParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const std::span<float> d_slots = ctx.scratch.AllocSpan<float>(std::ssize(s.slot_weight));
  const BackwardPass pass{p, s, x, dx, grad};
  BackwardExperts(ctx, pass, d.dy, d_slots);
  BackwardRouter(ctx, pass, ChosenOf(ctx, s, d_slots), d.d_scores);
  if (!p.shared_experts.gate_proj.value.empty()) shared_.Backward(ctx, p.shared_experts, s.shared, x, d.dy, dx, grad.shared_experts);
}

}  // namespace fathom

#include "fathom/layers/moe.h"

#include <algorithm>
#include <type_traits>

#include "fathom/base/plan_scope.h"
#include "fathom/base/trace.h"
#include "fathom/config/model_sizes.h"
#include "fathom/kernels/elementwise/swiglu.h"
#include "fathom/kernels/gemm/gemm_tiles.h"
#include "fathom/kernels/moe/moe_dispatch.h"
#include "fathom/layers/context_rows.h"
#include "fathom/layers/linear.h"
#include "fathom/layers/router_choice.h"
#include "fathom/parallel/beside.h"
#include "fathom/tensor/traced_bytes.h"

namespace fathom {
namespace {

// One matrix of every expert of this rank, in scratch.
template <class Params, class W = std::conditional_t<std::is_const_v<Params>, const Weight, Weight>>
std::span<W* const> MatricesOf(Ctx& ctx, Params& experts, Weight MlpParams::*matrix) {
  const size_t each = experts.size() / static_cast<size_t>(ctx.groups.expert.size()),
               first = each * static_cast<size_t>(ctx.groups.expert.rank());
  const std::span<W*> weights = ctx.scratch.AllocSpan<W*>(static_cast<int64_t>(each));
  for (size_t e = 0; e < each; ++e) weights[e] = &(experts[first + e].*matrix);
  return weights;
}

bool Travels(const Ctx& ctx) { return ctx.groups.expert.size() > 1 && !ctx.groups.same_tokens; }

// This rank's rows, as many as slots but for the dropped ones, and the rows that its experts run on: the same ones, if experts are not
// divided.
class Rows {
 public:
  Rows(Ctx& ctx, Moe::Saved& s)
      : count(s.begin.back()),
        token(s.row_token.first(static_cast<size_t>(count))),
        slot(s.row_slot.first(static_cast<size_t>(count))),
        ctx_(ctx),
        travels_(Travels(ctx)),
        exchange_(ctx.groups.expert, s.begin, s.held) {
    begin = travels_ ? std::span<const int64_t>(s.held.begin) : s.begin;
    held = begin.back();
    gate = s.gate.Rows(0, held);
    up = s.up.Rows(0, held);
  }
  bool travel() const { return travels_; }
  // [held,D] in scratch, or the rows themselves; there after Await.
  View BeginToExperts(View rows) const {
    if (!travels_) return rows;
    const View to = ctx_.scratch.Alloc(rows.dtype(), {held, rows.dim(1)});
    exchange_.ToExperts(rows, to, ctx_.groups.expert_beside);
    return to;
  }
  // Overwrites rows, unless they are the same, by the time of Await.
  void BeginFromExperts(View at_experts, View rows) const {
    if (travels_) exchange_.FromExperts(at_experts, rows, ctx_.groups.expert_beside);
  }
  // What was begun.
  void Await() const {
    if (travels_ && ctx_.groups.expert_beside != nullptr) ctx_.groups.expert_beside->AwaitAll();
  }

  const RowExchange& exchange() const { return exchange_; }

  int64_t count, held;
  std::span<const int32_t> token, slot;
  std::span<const int64_t> begin;  // rows of this rank's experts
  View gate, up;

 private:
  Ctx& ctx_;
  bool travels_;
  RowExchange exchange_;
};

View ColumnOf(std::span<float> x) { return ViewOf(x.data(), {std::ssize(x), 1}); }

// x's rows by expert, and back.
void TracedGather(ConstView x, std::span<const int32_t> row_token, View rows) {
  TraceSlice slice("gather rows by expert");
  if (slice.recorded()) slice.AddWork(0, static_cast<double>(2 * rows.NumBytes()));
  GatherRows(x, row_token, rows);
}
void TracedCombine(ConstView rows, std::span<const int32_t> slot_row, int64_t slots, View out) {
  TraceSlice slice("add up rows by token");
  if (slice.recorded()) slice.AddWork(0, static_cast<double>(rows.NumBytes() + 2 * out.NumBytes()));
  CombineRows(rows, slot_row, slots, out, true);
}

// The router's weight of each row that this rank's experts run on.
std::span<const float> RowWeights(Ctx& ctx, const Moe::Saved& s, const Rows& rows) {
  const std::span<float> weights = ctx.scratch.AllocSpan<float>(rows.count);
  GatherSlots(s.slot_weight, rows.slot, weights);
  if (!Travels(ctx)) return weights;
  const std::span<float> held = ctx.scratch.AllocSpan<float>(rows.held);
  rows.exchange().ToExperts(ColumnOf(weights), ColumnOf(held));
  return held;
}

// Their gradients, which each rank of a layer's width has a part of, to the slots that they belong to.
void ReturnWeights(Ctx& ctx, const Rows& rows, std::span<float> d_held, std::span<float> d_slots) {
  ctx.groups.tensor.AllSum(ColumnOf(d_held));
  std::span<float> d_rows = d_held;
  if (Travels(ctx)) {
    d_rows = ctx.scratch.AllocSpan<float>(rows.count);
    rows.exchange().FromExperts(ColumnOf(d_held), ColumnOf(d_rows));
  }
  std::ranges::fill(d_slots, 0.0f);  // of dropped slots
  ScatterSlots(d_rows, rows.slot, d_slots);
}

// Of ranks with the same tokens the first adds what the shared experts say.
bool HasShared(const Ctx& ctx, const MoeParams& p) {
  return !p.shared_experts.gate_proj.value.empty() && !(ctx.groups.same_tokens && ctx.groups.expert.rank() > 0);
}

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

Moe::Saved Moe::Allocate(Arena& arena, DType compute, int64_t tokens, const LayerGroups& groups) const {
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
  int64_t held = rows;
  if (groups.expert.size() > 1 && !groups.same_tokens) {
    s.held = {arena.AllocSpan<int64_t>(router_.experts), arena.AllocSpan<int64_t>(router_.experts / groups.expert.size() + 1)};
    if (!PlanScope::IsEven()) held *= groups.expert.size();
  }
  s.gate = arena.Alloc(compute, {held, width_});
  s.up = arena.Alloc(compute, {held, width_});
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
    std::ranges::copy(s.weights, s.slot_weight.begin());
    FillWithinCapacity(ctx, sequence, s);
  }
}

// Which assignments are dropped is decided over whole sequences, whichever ranks have their tokens.
void Moe::FillWithinCapacity(Ctx& ctx, int64_t sequence, Saved& s) const {
  const int64_t k = router_.chosen;
  const ContextRows rows(ctx.groups.context, s.scores.dim(0), sequence);
  if (!rows.divided()) {
    std::ranges::copy(s.ids, s.slot_expert.begin());
    return DropByCapacity(ctx, sequence, s.slot_expert);
  }
  const std::span<int32_t> all = rows.GatherIds(s.ids, k, ctx.scratch);
  DropByCapacity(ctx, sequence > 0 ? sequence * ctx.groups.context.size() : rows.all(), all);
  rows.ForChunks(
      [&](int64_t own, int64_t whole) { std::copy_n(all.begin() + whole * k, rows.chunk() * k, s.slot_expert.begin() + own * k); });
}

// slots [T*K] of sequences, one after the other.
void Moe::DropByCapacity(Ctx& ctx, int64_t sequence, std::span<int32_t> slots) const {
  const int64_t k = router_.chosen, e = router_.experts, tokens = std::ssize(slots) / k, length = sequence > 0 ? sequence : tokens;
  const std::span<int64_t> work = ctx.scratch.AllocSpan<int64_t>(e);
  for (int64_t t = 0; t < tokens; t += length) {
    const int64_t n = std::min(length, tokens - t), capacity = ExpertCapacity(n, k, e, run_.capacity_factor);
    DropOverCapacity(capacity, slots.subspan(static_cast<size_t>(t * k), static_cast<size_t>(n * k)), work);
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

void Moe::PlanRows(Ctx& ctx, int64_t sequence, Saved& s) const {
  const int64_t tokens = s.scores.dim(0), experts = router_.experts;
  const ContextRows shared(ctx.groups.context, tokens, sequence);
  if (run_.kind == ExpertRun::kCapacity && shared.divided()) shared.GatherIds(s.ids, router_.chosen, ctx.scratch);
  if (PlanScope::IsEven()) {
    for (int64_t e = 0; e <= experts; ++e) s.begin[static_cast<size_t>(e)] = tokens * slots() * e / experts;
    return;
  }
  const int64_t length = sequence > 0 ? std::min(sequence, tokens) : tokens;
  int64_t each = tokens;
  if (run_.kind == ExpertRun::kCapacity) {
    const int64_t capacity = ExpertCapacity(length * ctx.groups.context.size(), router_.chosen, router_.experts, run_.capacity_factor);
    each = std::min(tokens, capacity * ((tokens + length - 1) / length));
  }
  for (size_t e = 0; e < s.begin.size(); ++e) s.begin[e] = std::min(static_cast<int64_t>(e) * each, tokens * slots());
}

void Moe::Route(Ctx& ctx, const MoeParams& p, int64_t sequence, ConstView x, Saved& s) const {
  TraceSlice slice("router");
  ArenaScope scope(ctx.scratch);
  const View logits = ctx.scratch.Alloc(DType::kF32, s.scores.shape());
  AddBytes(slice, {logits, s.scores});
  ExactLinearForward(ctx, p.gate, AsF32(ctx, x), logits);
  RouterForward(router_, logits, BiasOf(p), s.scores, s.ids, s.weights);
  if (ctx.scratch.counting()) {
    PlanRows(ctx, sequence, s);
  } else {
    ApplyRoutingFaults(faults_, router_, s.scores, BiasOf(p), s.ids, s.weights);
    FillSlots(ctx, sequence, s);
    BuildDispatch(s.slot_expert, slots(), router_.experts, s.begin, s.row_token, s.row_slot, s.slot_row);
  }
  if (Travels(ctx)) RowExchange(ctx.groups.expert, s.begin, s.held).Count();
  if (ctx.groups.same_tokens) KeepHeld(ctx, s);
}

// They lie side by side, and are numbered anew.
void Moe::KeepHeld(Ctx& ctx, Saved& s) const {
  const auto each = static_cast<size_t>(router_.experts / ctx.groups.expert.size()),
             e = each * static_cast<size_t>(ctx.groups.expert.rank());
  const int64_t first = s.begin[e], end = s.begin[e + each];
  s.begin = s.begin.subspan(e, each + 1);
  for (int64_t& row : s.begin) row -= first;
  s.row_token = s.row_token.subspan(static_cast<size_t>(first));
  s.row_slot = s.row_slot.subspan(static_cast<size_t>(first));
  for (int32_t& row : s.slot_row) row = row >= first && row < end ? static_cast<int32_t>(row - first) : -1;
}

void Moe::Forward(Ctx& ctx, const MoeParams& p, int64_t sequence, ConstView x, View y, Saved& s) const {
  Route(ctx, p, sequence, x, s);
  ArenaScope scope(ctx.scratch);
  const Rows rows(ctx, s);
  const View inputs = ctx.scratch.Alloc(ctx.compute, {rows.count, hidden_});
  TracedGather(x, rows.token, inputs);
  const View at_experts = rows.BeginToExperts(inputs);
  if (HasShared(ctx, p)) {
    const TraceSlice slice("shared experts");
    shared_.ForwardBranches(ctx, p.shared_experts, x, s.shared);
  }
  rows.Await();
  ExpertsForward(ctx, MatricesOf(ctx, p.experts, &MlpParams::gate_proj), rows.begin, at_experts, rows.gate);
  ExpertsForward(ctx, MatricesOf(ctx, p.experts, &MlpParams::up_proj), rows.begin, at_experts, rows.up);
  const View hidden = ctx.scratch.Alloc(ctx.compute, {rows.held, width_});
  {
    TraceSlice slice("swiglu");
    AddBytes(slice, {rows.gate, rows.up, hidden});
    SwigluForward(rows.gate, rows.up, RowWeights(ctx, s, rows), hidden);
  }
  // The gathered inputs are not needed any more.
  ExpertsForward(ctx, MatricesOf(ctx, p.experts, &MlpParams::down_proj), rows.begin, hidden, at_experts);
  rows.BeginFromExperts(at_experts, inputs);
  rows.Await();
  TracedCombine(inputs, s.slot_row, slots(), y);
  if (!HasShared(ctx, p)) return;
  const TraceSlice slice("shared experts");
  shared_.ForwardDown(ctx, p.shared_experts, s.shared, ctx.scratch.Alloc(ctx.compute, s.shared.gate.shape()), y);
}

void Moe::BackwardExperts(Ctx& ctx, const BackwardPass& pass, ConstView dy, std::span<float> d_slots) const {
  ArenaScope scope(ctx.scratch);
  const MoeParams& p = pass.p;
  MoeParams& grad = pass.grad;
  const Rows rows(ctx, pass.s);
  const std::span<const float> row_weight = RowWeights(ctx, pass.s, rows);
  const View wide = ctx.scratch.Alloc(ctx.compute, {rows.count, hidden_});
  const View hidden = ctx.scratch.Alloc(ctx.compute, {rows.held, width_});
  const View d_hidden = ctx.scratch.Alloc(ctx.compute, {rows.held, width_});
  const auto add_gradients = [&](Weight MlpParams::*matrix, ConstView in, ConstView d_out) {
    ExpertsBackwardWeight(ctx, MatricesOf(ctx, p.experts, matrix), rows.begin, in, d_out, MatricesOf(ctx, grad.experts, matrix));
  };
  TracedGather(dy, rows.token, wide);
  const View d_out = rows.BeginToExperts(wide);
  rows.Await();
  View at_experts;  // the experts' inputs once more, on their way beside the last product's gradients
  if (rows.travel()) {
    const View inputs = ctx.scratch.Alloc(ctx.compute, wide.shape());
    TracedGather(pass.x, rows.token, inputs);
    at_experts = rows.BeginToExperts(inputs);
  }
  {
    TraceSlice slice("swiglu");
    AddBytes(slice, {rows.gate, rows.up, hidden});
    SwigluForward(rows.gate, rows.up, row_weight, hidden);
  }
  ExpertsBackwardInput(ctx, MatricesOf(ctx, p.experts, &MlpParams::down_proj), rows.begin, d_out, d_hidden, Write::kOverwrite);
  add_gradients(&MlpParams::down_proj, hidden, d_out);
  const std::span<float> d_held_weight = ctx.scratch.AllocSpan<float>(rows.held);
  {
    TraceSlice slice("swiglu's gradient");
    AddBytes(slice, {d_hidden, rows.gate, rows.gate, rows.up, rows.up});
    SwigluBackward(d_hidden, rows.gate, rows.up, row_weight, rows.gate, rows.up,
                   d_held_weight);  // the saved branches are not needed after this
  }
  ReturnWeights(ctx, rows, d_held_weight, d_slots);
  rows.Await();
  const auto add_input_gradients = [&] {
    if (!rows.travel()) TracedGather(pass.x, rows.token, at_experts = wide);
    add_gradients(&MlpParams::gate_proj, at_experts, rows.gate);
    add_gradients(&MlpParams::up_proj, at_experts, rows.up);
  };
  if (!rows.travel()) add_input_gradients();
  ExpertsBackwardInput(ctx, MatricesOf(ctx, p.experts, &MlpParams::gate_proj), rows.begin, rows.gate, d_out, Write::kOverwrite);
  ExpertsBackwardInput(ctx, MatricesOf(ctx, p.experts, &MlpParams::up_proj), rows.begin, rows.up, d_out, Write::kAdd);
  rows.BeginFromExperts(d_out, wide);  // beside the other products' gradients
  if (rows.travel()) add_input_gradients();
  rows.Await();
  TracedCombine(wide, pass.s.slot_row, slots(), pass.dx);
}

void Moe::BackwardRouter(Ctx& ctx, const BackwardPass& pass, std::span<const float> d_weights, ConstView d_scores) const {
  TraceSlice slice("router's gradient");
  AddBytes(slice, {pass.s.scores, pass.s.scores});
  ArenaScope scope(ctx.scratch);
  const View d_logits = ctx.scratch.Alloc(DType::kF32, pass.s.scores.shape());
  RouterBackward(router_, pass.s.scores, pass.s.ids, d_weights, d_scores, d_logits);
  ExactLinearBackward(ctx, pass.p.gate, AsF32(ctx, pass.x), d_logits, pass.dx, Write::kAdd, pass.grad.gate);
}

void Moe::Backward(Ctx& ctx, const MoeParams& p, Saved& s, ConstView x, const Cotangent& d, View dx, MoeParams& grad) const {
  ArenaScope scope(ctx.scratch);
  const std::span<float> d_slots = ctx.scratch.AllocSpan<float>(std::ssize(s.slot_weight));
  const Comm& tensor = ctx.groups.tensor;
  const auto add_shared = [&](View part) {
    if (!HasShared(ctx, p)) return;
    const TraceSlice slice("shared experts");
    shared_.Backward(ctx, p.shared_experts, s.shared, x, d.dy, part, grad.shared_experts);
  };
  AddOverRanks(tensor, ctx.scratch, dx, [&](View part) {
    BackwardExperts(ctx, {p, s, x, part, grad}, d.dy, d_slots);
    if (tensor.size() > 1) add_shared(part);  // what is summed over ranks is summed at once
  });
  BackwardRouter(ctx, {p, s, x, dx, grad}, ChosenOf(ctx, s, d_slots), d.d_scores);
  if (tensor.size() == 1) add_shared(dx);
}

}  // namespace fathom

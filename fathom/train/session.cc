#include "fathom/train/session.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <tuple>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/layers/context_rows.h"
#include "fathom/model/adapters.h"
#include "fathom/train/split_matrix.h"

namespace fathom {
namespace {

constexpr int64_t kReserve = 64 << 20;

// Address space, not memory: batches of many short documents take a little more for their lists.
int64_t SpaceFor(int64_t counted) { return 2 * counted + kReserve; }

// One memory under two names is one parameter.
std::vector<OptimizerParam> OptimizerParams(const TrainOptions& options, const Placement& placement, DecoderParams& params,
                                            DecoderParams& compute, DecoderParams& grads) {
  const Treatments& treatments = placement.treatments();
  std::vector<OptimizerParam> list;
  std::set<const std::byte*> seen;
  for (const auto& [param, grad] : ListParams(grads)) {
    if (!seen.insert(grad->value.view().raw()).second) continue;
    const int64_t kept = placement.Kept(*param).row_begin;
    const Region rows = placement.Updated(*param);
    const auto updated = [&](Tensor& tensor) { return tensor.mutable_view().Rows(rows.row_begin - kept, rows.row_end - kept); };
    list.push_back({.name = param->name,
                    .grad = updated(grad->value),
                    .orthogonal = IsOrthogonal(*param),
                    .counted = placement.IsFirstToUpdate(*param),
                    .first = rows.columns() == WholeOf(param->shape).columns() ? rows.row_begin * rows.columns() : 0,
                    .ranks = IsOrthogonal(*param) ? SplitMatrix::Of(placement, *param) : nullptr});
    if (treatments.Stays(*param)) continue;
    list.back().value = updated(params[*param].value);
    if (treatments.HasBF16Copy(*param)) list.back().bf16_copy = updated(compute[*param].value);
  }
  for (const auto& [param, adapter] : ListAdapters(params)) {
    LowRank& grad = *grads[*param].adapter;
    for (const auto& [factor, value, gradient] :
         {std::tuple(Factor::kA, &adapter->a, &grad.a), std::tuple(Factor::kB, &adapter->b, &grad.b)}) {
      list.push_back({.name = NameOf(*param, factor),
                      .value = value->mutable_view(),
                      .grad = gradient->mutable_view(),
                      .counted = placement.sharding().IsFirst(*param, factor)});
    }
  }
  ApplyDecayMask(options.adamw_mask, list);
  return list;
}

// What the flags leave to the model.
TrainOptions Completed(TrainOptions options, const ModelConfig& config) {
  options.lm_loss = options.lm_loss || !config.has_indexer();
  options.balance.highest_scores |= options.balance.form == BalanceForm::kNormalizedScores && config.scoring_func == ScoringFunc::kSigmoid;
  return options;
}

constexpr int64_t kRootLayer = -1;  // what belongs to no layer

bool IsSplit(const TrainOptions& options) { return options.mesh.size(Axis::kFsdp) > 1; }

// The part [begin, end) of a document's tokens that this rank has from `own` on: they see the document up to there.
void AddOwnSegment(const Segment& document, int64_t begin, int64_t end, int64_t own, std::vector<Segment>& segments) {
  const int64_t first = std::max(begin, document.q_begin), last = std::min(end, document.q_end);
  if (first < last) segments.push_back({own + first - begin, own + last - begin, document.q_begin, last});
}

}  // namespace

bool IsOrthogonal(const ParamSpec& param) {
  const ParamRole role = CopyOf(param.role).value_or(param.role);
  return param.shape.rank() == 2 && role != ParamRole::kEmbedding && role != ParamRole::kHead;
}

Batch FullBatch(int64_t rows, int64_t length) {
  Batch batch;
  batch.Clear(rows, length);
  const std::vector<int32_t> ids(static_cast<size_t>(length));
  for (int64_t row = 0; row < rows; ++row) batch.AddSegment(row * length, length, ids.data(), ids.data(), 1);
  return batch;
}

// More of them leave less time in which a rank waits; every one gathers layers that are split along fsdp anew.
int64_t MicroBatchCount(const Mesh& mesh, int64_t rows) {
  const int64_t stages = mesh.size(Axis::kStage), most = mesh.size(Axis::kFsdp) > 1 ? stages : 4 * stages;
  if (stages == 1) return 1;
  for (int64_t count = std::min(most, rows); count >= std::min(stages, rows); --count) {
    if (rows % count == 0) return count;
  }
  return rows;
}

int64_t MtpModules(const TrainOptions& options) { return std::max(options.mtp.modules, options.mtp.eval_module); }

TrainSession::TrainSession(const ModelConfig& config, const TrainOptions& options, DecoderParams params)
    : options_(Completed(options, config)),
      decoder_(Sharding(config, options.mesh).LocalConfig(), options.layers),
      groups_{options.mesh.comm(Axis::kTensor), options.mesh.comm(Axis::kExpert), options.mesh.comm(Axis::kContext),
              options.mesh.comm(Axis::kStage)},
      expert_rows_(groups_.expert.size() > 1 ? std::make_unique<Beside>(groups_.expert, Channel::kRows, row_courier_) : nullptr),
      params_(std::move(params)),
      placement_(*params_.spec, config, options),
      rounded_(MakeBF16Copy(params_, [&](const ParamSpec& param) { return treatments().HasBF16Copy(param); })),
      grads_(MakeGradients(params_, [&](const ParamSpec& param) { return treatments().HasGradient(param); })),
      weights_(IsSplit(options) ? std::make_unique<SplitLayers>(placement_, rounded_, SplitLayers::Use::kGather, courier_) : nullptr),
      split_grads_(IsSplit(options) ? std::make_unique<SplitLayers>(placement_, grads_, SplitLayers::Use::kScatter, courier_) : nullptr),
      shares_(placement_, params_, rounded_, grads_),
      compute_(weights_ ? weights_->whole() : rounded_),
      whole_grads_(split_grads_ ? split_grads_->whole() : grads_),
      lists_(1),
      counted_(CountPasses(PlanScope::Rows::kMost)),
      expected_(groups_.expert.size() > 1 ? CountPasses(PlanScope::Rows::kEven) : counted_),
      saved_(SpaceFor(counted_.saved)),
      scratch_(SpaceFor(counted_.scratch)) {
  MakeTotals();
  for (const NamedWeight& w : ListParams(grads_)) gradients_.push_back(w.weight->value.mutable_view());
  for (const auto& [param, bias] : ListParams(params_)) {
    if (treatments().Of(*param) == Treatment::kCounted)
      counted_biases_.push_back({static_cast<size_t>(param->layer), bias->value.mutable_data<float>()});
  }
  for (const NamedAdapter& a : ListAdapters(grads_)) {
    gradients_.push_back(a.adapter->a.mutable_view());
    gradients_.push_back(a.adapter->b.mutable_view());
  }
  sums_ = std::make_unique<GradientSums>(placement_, grads_, shares_, courier_);
  if (GradientSums::Overlaps(options.mesh)) whole_grads_.store = sums_.get();
  groups_.expert_beside = expert_rows_.get();
  if (options.qk_clip > 0) ListClipped();
  optimizer_ = std::make_unique<Optimizer>(options.optimizer, OptimizerParams(options, placement_, params_, rounded_, grads_),
                                           [world = options.mesh.world()](double x) {
                                             world.AllSum(std::span(&x, 1));
                                             return x;
                                           });
}

TrainSession::PassMemory TrainSession::CountPasses(PlanScope::Rows rows) {
  decoder_.EnsurePositions(options_.length);
  const PlanScope plan(NumThreads(), rows);
  Arena saved = Arena::Counting(), scratch = Arena::Counting();
  Ctx ctx{saved, scratch, options_.compute, options_.fp8_block, Arithmetic::kFastest, groups_};
  const Batch batch = FullBatch(options_.rows, options_.length);
  decoder_.ForwardBackward(ctx, compute_, MicroBatches(batch, 0, options_.rows), LossOf(Count(batch), 1, 1), options_.remat, whole_grads_);
  const TokenBatch tokens = Slice(batch, 0, options_.rows);
  if (options_.eval_interval > 0) decoder_.Loss(ctx, compute_, tokens, {.mtp = options_.mtp}, {});
  return {saved.peak(), scratch.peak()};
}

void TrainSession::MakeTotals() {
  const ModelConfig& c = decoder_.config();
  const auto main = static_cast<size_t>(c.num_hidden_layers), layers = main + static_cast<size_t>(options_.mtp.modules);
  const auto experts = static_cast<size_t>(c.n_routed_experts);
  layer_sums_.resize(2 * layers);
  layer_counts_.resize(layers * (experts + 1));
  if (options_.qk_clip > 0) max_logits_.resize(layers * static_cast<size_t>(c.num_attention_heads));
  totals_ = {std::span(layer_sums_).first(layers), std::span(layer_sums_).last(layers), std::span(layer_counts_).first(layers * experts),
             std::span(layer_counts_).last(layers), max_logits_};
}

int64_t TrainSession::BalancedLayers() const {
  const ModelConfig& c = decoder_.config();
  int64_t layers = 0;
  for (int64_t i = 0; i < c.num_hidden_layers + options_.mtp.modules; ++i) layers += c.is_moe_layer(i) ? 1 : 0;
  return layers;
}

// MaxText lets padding attend to itself, which its balance and indexer losses see: under compat it is a document of its own.
void TrainSession::ListSegments(const Batch& batch, int64_t begin, int64_t end, std::vector<Segment>& segments) const {
  segments.clear();
  const auto add = [&](int64_t first, int64_t last) { segments.push_back({first - begin, last - begin, first - begin, last - begin}); };
  int64_t done = begin;
  const auto pad = [&](int64_t until) {
    for (; options_.balance.padding && done < until; done = std::min(until, (done / batch.length + 1) * batch.length)) {
      add(done, std::min(until, (done / batch.length + 1) * batch.length));
    }
  };
  for (const TokenRange& s : batch.segments) {
    if (s.begin < begin || s.begin >= end) continue;
    pad(s.begin);
    add(s.begin, s.end);
    done = s.end;
  }
  pad(end);
}

TokenBatch TrainSession::Slice(const Batch& batch, int64_t row_begin, int64_t row_end) {
  return OwnRows(batch, row_begin, row_end, lists_[0]);
}

std::span<const TokenBatch> TrainSession::MicroBatches(const Batch& batch, int64_t row_begin, int64_t row_end) {
  micro_.clear();
  const int64_t count = MicroBatchCount(options_.mesh, row_end - row_begin);
  lists_.resize(std::max(lists_.size(), static_cast<size_t>(count)));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t rows = row_end - row_begin, first = row_begin + rows * i / count, last = row_begin + rows * (i + 1) / count;
    micro_.push_back(OwnRows(batch, first, last, lists_[static_cast<size_t>(i)]));
  }
  return micro_;
}

TokenBatch TrainSession::OwnRows(const Batch& batch, int64_t row_begin, int64_t row_end, RowLists& lists) {
  lists.whole = WholeRows(batch, row_begin, row_end, lists);
  const int64_t ranks = groups_.context.size(), tokens = std::ssize(lists.whole.ids) / ranks, sequence = batch.length / ranks;
  if (ranks == 1) return lists.whole;
  const ContextRows rows(groups_.context, tokens, sequence);
  for (auto* list : {&lists.ids, &lists.targets, &lists.positions}) list->resize(static_cast<size_t>(tokens));
  lists.weights.resize(static_cast<size_t>(tokens));
  lists.own_segments.clear();
  int64_t longest = 0;
  for (const Segment& document : lists.segments) longest = std::max(longest, document.q_end - document.q_begin);
  rows.ForChunks([&](int64_t own, int64_t from) {
    const auto copy = [&](const auto& whole, auto& part) { std::copy_n(whole.begin() + from, rows.chunk(), part.begin() + own); };
    copy(lists.whole.ids, lists.ids);
    copy(lists.whole.targets, lists.targets);
    copy(lists.whole.weights, lists.weights);
    copy(lists.whole.layout.positions, lists.positions);
    for (const Segment& document : lists.segments) AddOwnSegment(document, from, from + rows.chunk(), own, lists.own_segments);
  });
  return {lists.ids,
          lists.targets,
          lists.weights,
          {lists.positions, lists.own_segments, sequence, options_.indexer.dense_attention, longest},
          &lists.whole};
}

TokenBatch TrainSession::WholeRows(const Batch& batch, int64_t row_begin, int64_t row_end, RowLists& lists) {
  const int64_t begin = row_begin * batch.length, end = row_end * batch.length;
  ListSegments(batch, begin, end, lists.segments);
  const auto at = static_cast<size_t>(begin), n = static_cast<size_t>(end - begin);
  return {std::span(batch.ids).subspan(at, n),
          std::span(batch.targets).subspan(at, n),
          std::span(batch.weights).subspan(at, n),
          {std::span(batch.positions).subspan(at, n), lists.segments, batch.length, options_.indexer.dense_attention}};
}

void TrainSession::ZeroGradients() {
  const TraceSlice slice("zero gradients");
  ZeroEach(gradients_);
}

int64_t TrainSession::CountedTokens(const Batch& batch) const {
  if (options_.balance.padding) return batch.tokens();
  int64_t tokens = 0;
  for (const TokenRange& s : batch.segments) tokens += s.end - s.begin;
  return tokens;
}

BatchCounts TrainSession::Count(const Batch& batch) {
  std::array<double, 4> counts = {static_cast<double>(batch.target_count),
                                  MtpWeight(WholeRows(batch, 0, batch.rows, lists_[0]), options_.mtp.modules),
                                  static_cast<double>(CountedTokens(batch)), static_cast<double>(batch.rows)};
  options_.mesh.SumOverRows(counts);
  return {counts[0], counts[1], std::max(1.0, counts[2]), counts[3]};
}

double TrainSession::IndexerTerms(const BatchCounts& counts) const {
  return static_cast<double>(decoder_.config().num_hidden_layers + options_.mtp.modules) * counts.tokens;
}

double TrainSession::BalanceTerms(const BatchCounts& counts) const {
  const int64_t layers = options_.balance_sum ? 1 : std::max<int64_t>(1, BalancedLayers());
  return static_cast<double>(layers) * counts.rows;
}

LossOptions TrainSession::LossOf(const BatchCounts& batch, double scale, double mtp_scale) const {
  LossOptions o{options_.z_loss, static_cast<float>(scale), options_.lm_loss, options_.indexer, options_.balance, options_.mtp, totals_};
  o.indexer.factor /= static_cast<float>(IndexerTerms(batch));
  o.balance.factor /= static_cast<float>(BalanceTerms(batch));
  o.mtp.scale = static_cast<float>(mtp_scale);
  return o;
}

LossSums TrainSession::Gradients(const Batch& batch, double scale, double mtp_scale) {
  return Passes(batch, LossOf(Count(batch), scale, mtp_scale), false);
}

// summed: sums_ follows.
LossSums TrainSession::Passes(const Batch& batch, const LossOptions& loss, bool summed) {
  Ctx ctx = Context();
  const LayerScope weights(compute_, kRootLayer), gradients(whole_grads_, kRootLayer);
  std::ranges::fill(layer_sums_, 0.0);
  std::ranges::fill(layer_counts_, 0);
  std::ranges::fill(max_logits_, -std::numeric_limits<float>::infinity());
  LossSums total;
  for (int64_t row = 0; row < batch.rows; row += options_.rows) {
    const int64_t end = std::min(row + options_.rows, batch.rows);
    if (summed && end == batch.rows) sums_->BeginLastPass();
    total += decoder_.ForwardBackward(ctx, compute_, MicroBatches(batch, row, end), loss, options_.remat, whole_grads_);
  }
  return total;
}

// Of the whole batch.
LossSums TrainSession::SumOverRanks(const LossSums& mine) const {
  std::array<double, 8> x = {mine.main.loss,  mine.main.z_loss, mine.main.weight,  mine.mtp.loss,
                             mine.mtp.z_loss, mine.mtp.weight,  mine.mtp_accepted, mine.mtp_compared};
  std::array<double, 2> most = {mine.main.max_logit, mine.mtp.max_logit};
  options_.mesh.SumOverTokens(std::span<double>(x));
  options_.mesh.MaxOverTokens(most);
  return {{x[0], x[1], x[2], static_cast<float>(most[0])}, {x[3], x[4], x[5], static_cast<float>(most[1])}, x[6], x[7]};
}

LossSums TrainSession::Evaluate(const Batch& batch) {
  Ctx ctx = Context();
  const LayerScope weights(compute_, kRootLayer);
  LossSums total;
  for (int64_t row = 0; row < batch.rows; row += options_.rows) {
    total += decoder_.Loss(ctx, compute_, Slice(batch, row, std::min(row + options_.rows, batch.rows)), {.mtp = options_.mtp}, {});
  }
  return SumOverRanks(total);
}

StepReport TrainSession::Step(const Batch& batch, double learning_rate) {
  ZeroGradients();
  const BatchCounts counts = Count(batch);
  const double weight = counts.targets + 1e-8;
  StepReport report{.trains_lm = options_.lm_loss};
  const double mtp_scale = options_.mtp_factor / (counts.mtp_targets + 1e-8);
  report.sums = SumOverRanks(Passes(batch, LossOf(counts, 1 / weight, mtp_scale), true));
  Pulse::At(Activity::kUpdating);
  sums_->Sum();
  options_.mesh.SumOverTokens(std::span(layer_sums_));
  options_.mesh.SumOverTokens(std::span(layer_counts_));
  report.lm_loss = (report.sums.main.loss + report.sums.main.z_loss) / weight;
  report.mtp_loss = mtp_scale * report.sums.mtp.loss;
  report.indexer_kl = std::accumulate(totals_.indexer_kl.begin(), totals_.indexer_kl.end(), 0.0) / IndexerTerms(counts);
  report.indexer_loss = static_cast<double>(options_.indexer.factor) * report.indexer_kl;
  const double balance = std::accumulate(totals_.balance.begin(), totals_.balance.end(), 0.0) / BalanceTerms(counts);
  report.balance_loss = static_cast<double>(options_.balance.factor) * balance;
  report.loss = report.lm_loss + report.mtp_loss + report.indexer_loss + report.balance_loss;
  report.optimizer = optimizer_->Step(learning_rate, report.loss);
  if (report.optimizer.applied) shares_.GatherValues();
  if (options_.bias_update_rate > 0 && report.optimizer.applied && !PlanScope::Active()) UpdateRouterBiases();
  if (options_.qk_clip > 0) ClipQueriesAndKeys(report);
  return report;
}

// Of the layers whose queries and keys are trained, on whatever rank.
void TrainSession::ListClipped() {
  const ModelConfig& c = decoder_.config();
  std::set<int64_t> with_queries, with_keys;
  for (const ParamSpec& param : *params_.spec) {
    const bool keys = param.role == ParamRole::kKvUp, plain = param.role == ParamRole::kQuery;
    if (!(keys || plain || param.role == ParamRole::kQueryUp) || treatments().Of(param) != Treatment::kTrained) continue;
    (keys ? with_keys : with_queries).insert(param.layer);
    if ((plain && !options_.clips_plain_queries) || !placement_.sharding().Holds(param)) continue;
    const View copy = treatments().HasBF16Copy(param) ? rounded_[param].value.mutable_view() : View();
    const int64_t first_row = placement_.Kept(param).row_begin - placement_.sharding().Computed(param).row_begin;
    clipped_.push_back(
        {&param,
         {params_[param].value.mutable_view(), copy, first_row, c.qk_nope_head_dim, keys ? c.v_head_dim : c.qk_rope_head_dim, !keys}});
  }
  if (with_queries != with_keys || with_keys.empty())
    Throw(ErrorCode::kUsage,
          "use_qk_clip=true needs a run that trains queries (q_b_proj or q_proj) and keys (kv_b_proj) of the same layers");
}

// By the scores of the step's forward passes, after the optimizer's update.
void TrainSession::ClipQueriesAndKeys(StepReport& report) {
  const Mesh& mesh = options_.mesh;
  mesh.MaxOverTokens(std::span(max_logits_));
  double largest = std::ranges::max(max_logits_), grown = 0;
  mesh.comm(Axis::kTensor).AllMax(std::span(&largest, 1));
  report.max_attention_logit = largest;
  if (!report.optimizer.applied || PlanScope::Active()) return;
  for (const ClippedParam& clipped : clipped_) {
    const double squares = Clip(clipped);
    if (placement_.IsFirst(*clipped.param)) grown += squares;
  }
  mesh.world().AllSum(std::span(&grown, 1));
  report.optimizer.param_norm = std::sqrt(std::max(0.0, report.optimizer.param_norm * report.optimizer.param_norm + grown));
}

// The rows of this rank's heads that it keeps; returns by how much their sum of squares grew.
double TrainSession::Clip(const ClippedParam& clipped) {
  const auto heads = static_cast<size_t>(decoder_.config().num_attention_heads);
  const auto first_head = static_cast<uint32_t>(heads) * static_cast<uint32_t>(options_.mesh.rank(Axis::kTensor));
  const CounterRng rng(options_.optimizer.seed, HashName(clipped.param->name + ".clip"));
  const Rounding rounding{options_.optimizer.stochastic_rounding,
                          static_cast<uint32_t>(rng.Bits(static_cast<uint64_t>(optimizer_->step_count()))) + first_head};
  const auto largest = std::span<const float>(max_logits_).subspan(static_cast<size_t>(clipped.param->layer) * heads, heads);
  return ClipHeads(largest, options_.qk_clip, clipped.matrix, rounding);
}

// By the counts of the whole batch, not of its micro-batches.
void TrainSession::UpdateRouterBiases() {
  const auto experts = static_cast<size_t>(decoder_.config().n_routed_experts);
  for (const CountedBias& bias : counted_biases_)
    UpdateRouterBias(options_.bias_update_rate, totals_.expert_counts.subspan(bias.layer * experts, experts), {bias.values, experts});
}

}  // namespace fathom

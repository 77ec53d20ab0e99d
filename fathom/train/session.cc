#include "fathom/train/session.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "fathom/base/threads.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/model/adapters.h"

namespace fathom {
namespace {

constexpr int64_t kReserve = 64 << 20;

// Address space, not memory: batches of many short documents take a little more for their lists.
int64_t SpaceFor(int64_t counted) { return 2 * counted + kReserve; }

// What Muon moves, as MaxText has it: every matrix but embedding and head.
bool IsOrthogonal(const ParamSpec& param) {
  const ParamRole role = CopyOf(param.role).value_or(param.role);
  return param.shape.rank() == 2 && role != ParamRole::kEmbedding && role != ParamRole::kHead;
}

// One memory under two names is one parameter.
std::vector<OptimizerParam> OptimizerParams(const TrainOptions& options, const Treatments& treatments, DecoderParams& params,
                                            DecoderParams& compute, DecoderParams& grads) {
  std::vector<OptimizerParam> list;
  std::set<const std::byte*> seen;
  for (const auto& [param, grad] : ListParams(grads)) {
    if (!seen.insert(grad->value.view().raw()).second) continue;
    list.push_back({.name = param->name, .grad = grad->value.mutable_view()});
    list.back().orthogonal = IsOrthogonal(*param);
    if (treatments.Stays(*param)) continue;
    list.back().value = params[*param].value.mutable_view();
    if (treatments.HasBF16Copy(*param)) list.back().bf16_copy = compute[*param].value.mutable_view();
  }
  for (const auto& [param, adapter] : ListAdapters(params)) {
    LowRank& grad = *grads[*param].adapter;
    list.push_back({ModuleOf(*param) + ".lora_A.weight", adapter->a.mutable_view(), grad.a.mutable_view(), View()});
    list.push_back({ModuleOf(*param) + ".lora_B.weight", adapter->b.mutable_view(), grad.b.mutable_view(), View()});
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

// Full rows of one document each: longer documents take more memory than short ones.
Batch FullBatch(int64_t rows, int64_t length) {
  Batch batch;
  batch.Clear(rows, length);
  const std::vector<int32_t> ids(static_cast<size_t>(length));
  for (int64_t row = 0; row < rows; ++row) batch.AddSegment(row * length, length, ids.data(), ids.data(), 1);
  return batch;
}

}  // namespace

int64_t MtpModules(const TrainOptions& options) { return std::max(options.mtp.modules, options.mtp.eval_module); }

TrainSession::TrainSession(const ModelConfig& config, const TrainOptions& options, DecoderParams params)
    : options_(Completed(options, config)),
      decoder_(config, options.layers),
      params_(std::move(params)),
      treatments_(*params_.spec, options),
      compute_(MakeBF16Copy(params_, [&](const ParamSpec& param) { return treatments_.HasBF16Copy(param); })),
      grads_(MakeGradients(params_, [&](const ParamSpec& param) { return treatments_.HasGradient(param); })),
      counted_(CountPasses()),
      saved_(SpaceFor(counted_.saved)),
      scratch_(SpaceFor(counted_.scratch)) {
  MakeTotals();
  for (const NamedWeight& w : ListParams(grads_)) gradients_.push_back(w.weight->value.mutable_view());
  for (const auto& [param, bias] : ListParams(params_)) {
    if (treatments_.Of(*param) == Treatment::kCounted)
      counted_biases_.push_back({static_cast<size_t>(param->layer), bias->value.mutable_data<float>()});
  }
  for (const NamedAdapter& a : ListAdapters(grads_)) {
    gradients_.push_back(a.adapter->a.mutable_view());
    gradients_.push_back(a.adapter->b.mutable_view());
  }
  optimizer_ = std::make_unique<Optimizer>(options.optimizer, OptimizerParams(options, treatments_, params_, compute_, grads_));
}

TrainSession::PassMemory TrainSession::CountPasses() {
  decoder_.EnsurePositions(options_.length);
  const PlanScope plan(NumThreads());
  Arena saved = Arena::Counting(), scratch = Arena::Counting();
  Ctx ctx{saved, scratch, options_.compute, options_.fp8_block};
  const Batch batch = FullBatch(options_.rows, options_.length);
  const TokenBatch tokens = Slice(batch, 0, options_.rows);
  decoder_.ForwardBackward(ctx, compute_, tokens, LossOf(batch, 1, 1), options_.remat, grads_);
  if (options_.eval_interval > 0) decoder_.Loss(ctx, compute_, tokens, {.mtp = options_.mtp}, {});
  return {saved.peak(), scratch.peak()};
}

void TrainSession::MakeTotals() {
  const ModelConfig& c = decoder_.config();
  const auto main = static_cast<size_t>(c.num_hidden_layers), layers = main + static_cast<size_t>(options_.mtp.modules);
  const auto experts = static_cast<size_t>(c.n_routed_experts);
  layer_sums_.resize(2 * layers);
  layer_counts_.resize(layers * (experts + 1));
  totals_ = {std::span(layer_sums_).first(layers), std::span(layer_sums_).last(layers), std::span(layer_counts_).first(layers * experts),
             std::span(layer_counts_).last(layers)};
}

int64_t TrainSession::BalancedLayers() const {
  const ModelConfig& c = decoder_.config();
  int64_t layers = 0;
  for (int64_t i = 0; i < c.num_hidden_layers + options_.mtp.modules; ++i) layers += c.is_moe_layer(i) ? 1 : 0;
  return layers;
}

// MaxText lets padding attend to itself, which its balance and indexer losses see: under compat it is a document of its own.
void TrainSession::ListSegments(const Batch& batch, int64_t begin, int64_t end) {
  segments_.clear();
  const auto add = [&](int64_t first, int64_t last) { segments_.push_back({first - begin, last - begin, first - begin, last - begin}); };
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
  const int64_t begin = row_begin * batch.length, end = row_end * batch.length;
  ListSegments(batch, begin, end);
  const auto at = static_cast<size_t>(begin), n = static_cast<size_t>(end - begin);
  return {std::span(batch.ids).subspan(at, n),
          std::span(batch.targets).subspan(at, n),
          std::span(batch.weights).subspan(at, n),
          {std::span(batch.positions).subspan(at, n), segments_, batch.length, options_.indexer.dense_attention}};
}

void TrainSession::ZeroGradients() {
  for (const View& gradient : gradients_) Fill(0, gradient);
}

int64_t TrainSession::CountedTokens(const Batch& batch) const {
  if (options_.balance.padding) return batch.tokens();
  int64_t tokens = 0;
  for (const TokenRange& s : batch.segments) tokens += s.end - s.begin;
  return std::max<int64_t>(1, tokens);
}

double TrainSession::IndexerTerms(const Batch& batch) const {
  return static_cast<double>((decoder_.config().num_hidden_layers + options_.mtp.modules) * CountedTokens(batch));
}

double TrainSession::BalanceTerms(const Batch& batch) const {
  const int64_t layers = options_.balance_sum ? 1 : std::max<int64_t>(1, BalancedLayers());
  return static_cast<double>(layers * batch.rows);
}

LossOptions TrainSession::LossOf(const Batch& batch, double scale, double mtp_scale) const {
  LossOptions o{options_.z_loss, static_cast<float>(scale), options_.lm_loss, options_.indexer, options_.balance, options_.mtp, totals_};
  o.indexer.factor /= static_cast<float>(IndexerTerms(batch));
  o.balance.factor /= static_cast<float>(BalanceTerms(batch));
  o.mtp.scale = static_cast<float>(mtp_scale);
  return o;
}

LossSums TrainSession::Gradients(const Batch& batch, double scale, double mtp_scale) {
  Ctx ctx{saved_, scratch_, options_.compute, options_.fp8_block};
  const LossOptions loss = LossOf(batch, scale, mtp_scale);
  std::ranges::fill(layer_sums_, 0.0);
  std::ranges::fill(layer_counts_, 0);
  LossSums total;
  for (int64_t row = 0; row < batch.rows; row += options_.rows) {
    const TokenBatch micro = Slice(batch, row, std::min(row + options_.rows, batch.rows));
    total += decoder_.ForwardBackward(ctx, compute_, micro, loss, options_.remat, grads_);
  }
  return total;
}

LossSums TrainSession::Evaluate(const Batch& batch) {
  Ctx ctx{saved_, scratch_, options_.compute, options_.fp8_block};
  LossSums total;
  for (int64_t row = 0; row < batch.rows; row += options_.rows) {
    total += decoder_.Loss(ctx, compute_, Slice(batch, row, std::min(row + options_.rows, batch.rows)), {.mtp = options_.mtp}, {});
  }
  return total;
}

StepReport TrainSession::Step(const Batch& batch, double learning_rate) {
  ZeroGradients();
  const double weight = static_cast<double>(batch.target_count) + 1e-8;
  StepReport report{.trains_lm = options_.lm_loss};
  const double mtp_scale = options_.mtp_factor / (MtpWeight(Slice(batch, 0, batch.rows), options_.mtp.modules) + 1e-8);
  report.sums = Gradients(batch, 1 / weight, mtp_scale);
  report.lm_loss = (report.sums.main.loss + report.sums.main.z_loss) / weight;
  report.mtp_loss = mtp_scale * report.sums.mtp.loss;
  report.indexer_kl = std::accumulate(totals_.indexer_kl.begin(), totals_.indexer_kl.end(), 0.0) / IndexerTerms(batch);
  report.indexer_loss = static_cast<double>(options_.indexer.factor) * report.indexer_kl;
  const double balance = std::accumulate(totals_.balance.begin(), totals_.balance.end(), 0.0) / BalanceTerms(batch);
  report.balance_loss = static_cast<double>(options_.balance.factor) * balance;
  report.loss = report.lm_loss + report.mtp_loss + report.indexer_loss + report.balance_loss;
  report.optimizer = optimizer_->Step(learning_rate, report.loss);
  if (options_.bias_update_rate > 0 && report.optimizer.applied) UpdateRouterBiases();
  return report;
}

// By the counts of the whole batch, not of its micro-batches.
void TrainSession::UpdateRouterBiases() {
  const auto experts = static_cast<size_t>(decoder_.config().n_routed_experts);
  for (const CountedBias& bias : counted_biases_)
    UpdateRouterBias(options_.bias_update_rate, totals_.expert_counts.subspan(bias.layer * experts, experts), {bias.values, experts});
}

}  // namespace fathom

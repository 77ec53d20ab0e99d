#include "fathom/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/kernels/elementwise/adamw.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/optim/name_mask.h"
#include "fathom/tensor/traced_bytes.h"

namespace fathom {
namespace {

// Elements a thread takes at a time: w, m, v and g together fit its L2 cache, so the norm of the new w is read from there.
constexpr int64_t kPartElements = 1 << 15;

bool HasMoments(const OptimizerConfig& config, const OptimizerParam& p) { return config.type != OptimizerType::kSgd && p.moves(); }

void CheckParam(const OptimizerParam& p) {
  const int64_t n = p.grad.NumElements();
  FATHOM_CHECK(!p.grad.empty() && p.grad.contiguous() && p.grad.dtype() == DType::kF32, "{}", p.name);
  FATHOM_CHECK(!p.moves() || (p.value.contiguous() && p.value.NumElements() == n), "{}", p.name);
  FATHOM_CHECK(!p.moves() || p.value.dtype() == DType::kF32 || p.value.dtype() == DType::kBF16, "{}", p.name);
  FATHOM_CHECK(p.bf16_copy.empty() || (p.bf16_copy.contiguous() && p.bf16_copy.NumElements() == n), "{}", p.name);
}

// Elements [begin, end) of a contiguous view; an empty one stays empty.
template <class V>
V Slice(const V& v, int64_t begin, int64_t end) {
  return v.empty() ? V() : v.Reshape(Shape{v.NumElements()}).Rows(begin, end);
}

AdamWStep StepValues(const OptimizerConfig& c, bool decayed, int64_t t, double learning_rate, double grad_scale, const Rounding& rounding) {
  const auto f = [](double x) { return static_cast<float>(x); };
  const bool nesterov = c.type == OptimizerType::kMuon;
  return {f(learning_rate), f(c.b1),  f(c.b2), f(c.eps), f(c.eps_root), f(decayed ? c.weight_decay : 0), t,
          f(grad_scale),    nesterov, rounding};
}

// Values and moments are read and written, gradients read, copies written.
double UpdateBytes(const OptimizerConfig& config, const OptimizerParam& p) {
  const int64_t moments = HasMoments(config, p) ? DTypeSize(config.mu_dtype) + DTypeSize(config.nu_dtype) : 0;
  const int64_t each = 2 * (DTypeSize(p.value.dtype()) + moments) + DTypeSize(p.grad.dtype()) + (p.bf16_copy.empty() ? 0 : 2);
  return static_cast<double>(each) * static_cast<double>(p.grad.NumElements());
}

}  // namespace

OptimizerType ParseOptimizerType(std::string_view name) {
  if (name == "adamw") return OptimizerType::kAdamW;
  if (name == "adam_pax") return OptimizerType::kAdamPax;
  if (name == "sgd") return OptimizerType::kSgd;
  if (name == "muon") return OptimizerType::kMuon;
  Throw(ErrorCode::kUsage, "opt_type={}: must be adamw, adam_pax, sgd or muon", name);
}

void ApplyDecayMask(const std::vector<std::string>& adamw_mask, std::vector<OptimizerParam>& params) {
  std::vector<std::string> names;
  for (const OptimizerParam& p : params) names.push_back(p.name);
  const std::vector<bool> undecayed = MatchNames("adamw_mask", adamw_mask, names);
  for (size_t i = 0; i < params.size(); ++i) params[i].decayed = !undecayed[i];
}

Optimizer::Optimizer(const OptimizerConfig& config, std::vector<OptimizerParam> params, SumOverRanks sum_over_ranks)
    : config_(config), sum_over_ranks_(std::move(sum_over_ranks)), params_(std::move(params)) {
  for (const DType dtype : {config_.mu_dtype, config_.nu_dtype})
    FATHOM_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "moments {}", DTypeName(dtype));
  for (size_t i = 0; i < params_.size(); ++i) {
    const OptimizerParam& p = params_[i];
    CheckParam(p);
    moments_of_.push_back(HasMoments(config_, p) ? static_cast<int64_t>(moments_.size()) : -1);
    if (moments_of_.back() >= 0) MakeMoments(p);
    MakeParts(i);
  }
  OrderParts();
  partials_.resize(parts_.size());
  if (config_.spikes) spikes_.emplace(*config_.spikes);
  if (scratch_bytes_ > 0) scratch_.emplace(scratch_bytes_);
}

void Optimizer::MakeParts(size_t param) {
  const OptimizerParam& p = params_[param];
  const int64_t n = p.grad.NumElements();
  if (p.moves() && !IsMuons(p)) update_bytes_ += UpdateBytes(config_, p);
  if (PlanScope::Active()) {  // of a large model they are many
    part_count_ += (n + kPartElements - 1) / kPartElements;
    return;
  }
  for (int64_t begin = 0; begin < n; begin = parts_.back().end) {
    const int64_t next = (p.first + begin) / kPartElements * kPartElements + kPartElements - p.first;  // in the whole
    parts_.push_back({param, begin, std::min(next, n)});
  }
  part_count_ = std::ssize(parts_);
}

// Of memory that a thread touched first it has the middle of the part.
void Optimizer::OrderParts() {
  const int64_t owners = NumThreads();
  const auto owner = [&](size_t i) {
    const Part& part = parts_[i];
    return OwnerOf((part.begin + part.end) / 2, params_[part.param].grad.NumElements(), owners);
  };
  order_.resize(parts_.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::ranges::stable_sort(order_, {}, owner);
}

void Optimizer::MakeMoments(const OptimizerParam& p) {
  storage_.emplace_back(config_.mu_dtype, p.value.shape());
  moments_.push_back({p.name, storage_.back().mutable_view(), View()});
  if (IsMuons(p)) {
    FATHOM_CHECK(p.value.shape().rank() == 2, "{} is no matrix", p.name);
    const Shape whole = p.ranks == nullptr ? p.value.shape() : p.ranks->whole();
    scratch_bytes_ = std::max(scratch_bytes_, MuonScratchBytes(whole[0], whole[1], p.ranks != nullptr));
    return;
  }
  storage_.emplace_back(config_.nu_dtype, p.value.shape());
  moments_.back().v = storage_.back().mutable_view();
}

// Of the elements from `begin` on, in the step that is being taken: wherever ranks cut the rows of the whole.
Rounding Optimizer::RoundingOf(const OptimizerParam& p, int64_t begin) const {
  if (!config_.stochastic_rounding) return {};
  const int64_t element = p.first + begin, part = IsMuons(p) ? 0 : element / kPartElements;
  const auto key = static_cast<uint64_t>(step_count_) << 32 | static_cast<uint64_t>(part);
  return {true, static_cast<uint32_t>(CounterRng(config_.seed, HashName(p.name)).Bits(key)), element - part * kPartElements};
}

double Optimizer::SumPartials() const {
  double sum = 0;
  for (const double x : partials_) sum += x;
  return sum_over_ranks_ ? sum_over_ranks_(sum) : sum;
}

// Of squares(part, parameter), the sum of squares of a part.
template <class F>
double Optimizer::NormOverParts(const F& squares) {
  ParallelJobs(part_count_, [&](int64_t i) {
    const size_t at = order_[static_cast<size_t>(i)];
    partials_[at] = squares(parts_[at], params_[parts_[at].param]);
  });
  return std::sqrt(SumPartials());
}

double Optimizer::GradNorm() {
  TraceSlice slice("gradient norm");
  for (const OptimizerParam& p : params_) AddBytes(slice, {p.grad});
  return NormOverParts(
      [](const Part& part, const OptimizerParam& p) { return p.counted ? SumSquares(Slice(p.grad, part.begin, part.end)) : 0; });
}

void Optimizer::UpdatePart(const Part& part, double learning_rate, double grad_scale) {
  const OptimizerParam& p = params_[part.param];
  const View w = Slice(p.value, part.begin, part.end), copy = Slice(p.bf16_copy, part.begin, part.end);
  const View g = Slice(p.grad, part.begin, part.end);
  const int64_t moments = moments_of_[part.param];
  const Rounding rounding = RoundingOf(p, part.begin);
  if (moments < 0) {
    SgdUpdate({static_cast<float>(learning_rate), 0, static_cast<float>(grad_scale), rounding}, w, g, copy);
    return;
  }
  const Moments& state = moments_[static_cast<size_t>(moments)];
  AdamWUpdate(StepValues(config_, p.decayed, step_count_ + 1, learning_rate, grad_scale, rounding),
              {w, Slice(state.m, part.begin, part.end), Slice(state.v, part.begin, part.end), g, copy});
}

// One after the other: the threads share each product.
void Optimizer::UpdateMatrices(double learning_rate, double grad_scale) {
  const OptimizerConfig& c = config_;
  MuonStep step{learning_rate, c.muon_beta, c.muon_weight_decay, c.eps, step_count_ + 1, grad_scale, c.muon_consistent_rms};
  for (size_t i = 0; i < params_.size(); ++i) {
    const OptimizerParam& p = params_[i];
    if (!IsMuons(p)) continue;
    step.rounding = RoundingOf(p, 0);
    MuonUpdate(step, {p.value, moments_[static_cast<size_t>(moments_of_[i])].m, p.grad, p.bf16_copy, p.ranks.get()}, *scratch_);
  }
}

double Optimizer::PartSquares(const Part& part, const OptimizerParam& p) const {
  return p.moves() && p.counted ? SumSquares(Slice(p.value, part.begin, part.end)) : 0;
}

double Optimizer::UpdateAndParamNorm(double learning_rate, double grad_scale) {
  TraceSlice slice("optimizer's update");
  slice.AddWork(0, update_bytes_);
  UpdateMatrices(learning_rate, grad_scale);
  return NormOverParts([&](const Part& part, const OptimizerParam& p) {
    if (p.moves() && !IsMuons(p)) UpdatePart(part, learning_rate, grad_scale);
    return PartSquares(part, p);
  });
}

// Of a step that moves nothing.
double Optimizer::ParamNorm() {
  return NormOverParts([this](const Part& part, const OptimizerParam& p) { return PartSquares(part, p); });
}

OptimizerReport Optimizer::Step(double learning_rate, double loss) {
  OptimizerReport report;
  report.raw_grad_norm = GradNorm();
  if (!std::isfinite(report.raw_grad_norm)) {
    report.grad_norm = report.raw_grad_norm;
    report.param_norm = ParamNorm();
    return report;
  }
  report.spike = spikes_ && std::isfinite(loss) && spikes_->IsSpike(loss, report.raw_grad_norm);
  if (report.spike) {
    report.grad_norm = report.raw_grad_norm;
    report.param_norm = ParamNorm();
    return report;
  }
  const double threshold = config_.gradient_clipping_threshold;
  const double scale = threshold > 0 && report.raw_grad_norm > threshold ? threshold / report.raw_grad_norm : 1;
  report.grad_norm = report.raw_grad_norm * scale;
  report.param_norm = UpdateAndParamNorm(learning_rate, scale);
  report.applied = true;
  ++step_count_;
  return report;
}

}  // namespace fathom

#include <cmath>
#include <optional>

#include "fathom/base/progress.h"
#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/kernels/elementwise/random_fill.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {

constexpr double kShownElements = 20e6;  // more than this is worth a line of progress

// Standard deviation of a matrix [N,K]: 1/sqrt(K).
double MatrixDeviation(const ParamSpec& p, const ModelConfig& config, bool maxtext_expert_init) {
  if (maxtext_expert_init && p.is_expert()) {  // MaxText 0.2.5: E times the output width
    return 1 / std::sqrt(static_cast<double>(config.n_routed_experts) * static_cast<double>(p.shape[0]));
  }
  return 1 / std::sqrt(static_cast<double>(p.shape[1]));
}

Tensor Fresh(const ParamSpec& p, const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init) {
  Tensor value(LearnsByCounting(p.role) ? DType::kF32 : dtype, p.shape);
  switch (p.facts().fresh) {
    case FreshValues::kZeros:
      break;
    case FreshValues::kOnes:
      Fill(1, value.mutable_view());
      break;
    case FreshValues::kUnitNormal:
      FillNormal(seed, HashName(p.name), 1.0, value.mutable_view());
      break;
    case FreshValues::kFanIn:
      FillTruncatedNormal(seed, HashName(p.name), MatrixDeviation(p, config, maxtext_expert_init), value.mutable_view());
  }
  return value;
}

Tensor CopyOfPart(const Tensor& whole, const Region& part) {
  if (part == WholeOf(whole.shape())) return whole;
  Tensor copy(whole.dtype(), ShapeOf(part, whole.shape()));
  Cast(PartOf(whole.view(), part), copy.mutable_view());
  return copy;
}

}  // namespace

void InitMissing(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, ParamFilter wanted, DecoderParams& params,
                 RegionOf region) {
  const auto is_missing = [&](const ParamSpec& param) {
    return params[param].value.empty() && wanted(param) && (!region || region(param).rows() > 0);
  };
  double total = 0, done = 0;
  for (const ParamSpec& param : *params.spec) total += is_missing(param) ? static_cast<double>(param.shape.NumElements()) : 0;
  std::optional<Progress> progress;
  if (total >= kShownElements && !PlanScope::Active()) progress.emplace("initialising", "M parameters", total, 1e6);
  for (const ParamSpec& param : *params.spec) {
    if (!is_missing(param)) continue;
    params[param].value = Fresh(param, config, seed, dtype, maxtext_expert_init);
    if (region) params[param].value = CopyOfPart(params[param].value, region(param));
    done += static_cast<double>(param.shape.NumElements());
    if (progress) progress->Update(done);
  }
  if (progress) progress->Finish();
}

DecoderParams InitParams(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, RegionOf region) {
  DecoderParams params = DecoderParams::For(config);
  InitMissing(
      config, seed, dtype, maxtext_expert_init, [](const ParamSpec&) { return true; }, params, region);
  return params;
}

}  // namespace fathom

#include "fathom/layers/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "fathom/base/threads.h"

namespace fathom {
namespace {

ModelConfig WithoutYarn(ModelConfig config) {
  config.rope_scaling.reset();
  return config;
}

double YarnMscale(double factor, double mscale) { return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0; }

// The (fractional) frequency index that makes `rotations` turns within the original context.
double CorrectionDim(const ModelConfig& c, double rotations) {
  const double length = static_cast<double>(c.rope_scaling->original_max_position_embeddings);
  return static_cast<double>(c.qk_rope_head_dim) * std::log(length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(c.rope_theta));
}

}  // namespace

std::vector<double> RopeFrequencies(const ModelConfig& c) {
  const double dim = static_cast<double>(c.qk_rope_head_dim);
  std::vector<double> f(static_cast<size_t>(c.qk_rope_head_dim / 2));
  for (size_t i = 0; i < f.size(); ++i) f[i] = std::pow(c.rope_theta, -2.0 * static_cast<double>(i) / dim);
  if (!c.rope_scaling) return f;
  const double low = std::max(std::floor(CorrectionDim(c, c.rope_scaling->beta_fast)), 0.0);
  double high = std::min(std::ceil(CorrectionDim(c, c.rope_scaling->beta_slow)), dim - 1);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < f.size(); ++i) {
    const double smooth = 1 - std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    f[i] = f[i] / c.rope_scaling->factor * (1 - smooth) + f[i] * smooth;
  }
  return f;
}

double RopeTableScale(const ModelConfig& c) {
  if (!c.rope_scaling) return 1.0;
  const RopeScaling& s = *c.rope_scaling;
  if (s.mscale_all_dim == 0) return YarnMscale(s.factor, 1);
  return YarnMscale(s.factor, s.mscale) / YarnMscale(s.factor, s.mscale_all_dim);
}

double SoftmaxScale(const ModelConfig& c, const LayerFaults& faults) {
  const double scale = 1 / std::sqrt(static_cast<double>(c.qk_head_dim()));
  if (faults.plain_softmax_scale || !c.rope_scaling || c.rope_scaling->mscale_all_dim == 0) return scale;
  const double m = YarnMscale(c.rope_scaling->factor, c.rope_scaling->mscale_all_dim);
  return scale * m * m;
}

RopeTable::RopeTable(const ModelConfig& config, int64_t length, const LayerFaults& faults)
    : cos(DType::kF32, {length, config.qk_rope_head_dim / 2}), sin(DType::kF32, {length, config.qk_rope_head_dim / 2}) {
  const auto frequencies = RopeFrequencies(faults.plain_frequencies ? WithoutYarn(config) : config);
  const double scale = RopeTableScale(config);
  ParallelRanges(length, 64, [&](int64_t begin, int64_t end) {
    for (int64_t position = begin; position < end; ++position) {
      float *c = cos.mutable_view().row<float>(position), *s = sin.mutable_view().row<float>(position);
      for (const double f : frequencies) {
        *c++ = static_cast<float>(scale * std::cos(static_cast<double>(position) * f));
        *s++ = static_cast<float>(scale * std::sin(static_cast<double>(position) * f));
      }
    }
  });
}

}  // namespace fathom

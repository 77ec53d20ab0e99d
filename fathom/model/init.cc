#include <cmath>

#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/hf_names.h"
#include "fathom/kernels/elementwise/random_fill.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {

// Standard deviation of a matrix [N,K]: 1/sqrt(K).
double MatrixDeviation(const ExpectedTensor& t, const ModelConfig& config, bool maxtext_expert_init) {
  if (maxtext_expert_init && t.name.find(".experts.") != t.name.npos) {
    return 1 / std::sqrt(static_cast<double>(config.n_routed_experts) *
                         static_cast<double>(t.shape[0]));  // MaxText 0.2.5: E times the output width
  }
  return 1 / std::sqrt(static_cast<double>(t.shape[1]));
}

Tensor Fresh(const ExpectedTensor& t, const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init) {
  Tensor value(t.kind == TensorKind::kRouterBias ? DType::kF32 : dtype, t.shape);
  if (t.kind == TensorKind::kRouterBias || t.name.ends_with(".bias")) return value;
  if (t.kind == TensorKind::kNorm) {
    Fill(1, value.mutable_view());
  } else if (t.name.ends_with("embed_tokens.weight")) {
    FillNormal(seed, HashName(t.name), 1.0, value.mutable_view());
  } else {
    FillTruncatedNormal(seed, HashName(t.name), MatrixDeviation(t, config, maxtext_expert_init), value.mutable_view());
  }
  return value;
}

// Fresh values for the empty slots of visit(f) that the config has a tensor for.
template <class Visit>
void FillEmpty(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, const Visit& visit) {
  std::map<std::string, ExpectedTensor> expected;
  for (const ExpectedTensor& t : ExpectedTensors(config)) expected.emplace(t.name, t);
  visit([&](const std::string& name, Weight& w) {
    const auto found = expected.find(name);
    if (w.value.empty() && found != expected.end()) w.value = Fresh(found->second, config, seed, dtype, maxtext_expert_init);
  });
}

}  // namespace

DecoderParams InitParams(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init) {
  DecoderParams params = DecoderParams::For(config);
  FillEmpty(config, seed, dtype, maxtext_expert_init, [&](const auto& f) { DecoderParams::Visit(params, f); });
  return params;
}

void InitMissingMtp(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, DecoderParams& params) {
  params.mtp.resize(static_cast<size_t>(config.num_nextn_predict_layers));
  for (MtpParams& m : params.mtp) m.block.moe.experts.resize(static_cast<size_t>(config.n_routed_experts));
  FillEmpty(config, seed, dtype, maxtext_expert_init, [&](const auto& f) {
    for (size_t k = 0; k < params.mtp.size(); ++k) MtpParams::Visit(params.mtp[k], DecoderParams::LayerPrefix(params.layers.size() + k), f);
  });
}

void InitMissingIndexers(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init, DecoderParams& params) {
  FillEmpty(config, seed, dtype, maxtext_expert_init, [&](const auto& f) {
    DecoderParams::Visit(params, [&](const std::string& name, Weight& w) {
      if (name.find(".indexer.") != name.npos) f(name, w);
    });
  });
}

}  // namespace fathom

#include <cmath>

#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hf_names.h"
#include "fathom/kernels/random_fill.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {

// Standard deviation of a matrix [N,K]: 1/sqrt(K).
double MatrixDeviation(const ExpectedTensor& t, const ModelConfig& config, bool maxtext_expert_init) {
  if (maxtext_expert_init && t.name.find(".experts.") != t.name.npos) {
    return 1 / std::sqrt(static_cast<double>(config.n_routed_experts) * static_cast<double>(t.shape[0]));  // MaxText 0.2.5: E times the output width
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

}  // namespace

DecoderParams InitParams(const ModelConfig& config, uint64_t seed, DType dtype, bool maxtext_expert_init) {
  std::map<std::string, ExpectedTensor> expected;
  for (const ExpectedTensor& t : ExpectedTensors(config)) expected.emplace(t.name, t);
  DecoderParams params = DecoderParams::For(config);
  DecoderParams::Visit(params, [&](const std::string& name, Weight& w) {
    const auto found = expected.find(name);
    if (found != expected.end()) w.value = Fresh(found->second, config, seed, dtype, maxtext_expert_init);
  });
  return params;
}

}  // namespace fathom

#include "fathom/model/params.h"

#include "fathom/kernels/vector_ops.h"

namespace fathom {
namespace {

// Visits two parameter sets of the same model side by side.
void VisitPairs(DecoderParams& a, DecoderParams& b, const std::function<void(const std::string&, Weight&, Weight&)>& f) {
  std::vector<Weight*> slots;
  DecoderParams::Visit(b, [&](const std::string&, Weight& w) { slots.push_back(&w); });
  size_t i = 0;
  DecoderParams::Visit(a, [&](const std::string& name, Weight& w) { f(name, w, *slots[i++]); });
}

}  // namespace

DecoderParams DecoderParams::For(const ModelConfig& config) {
  DecoderParams p;
  const auto experts = static_cast<size_t>(config.n_routed_experts);
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    p.layers.emplace_back();
    if (config.is_moe_layer(i)) p.layers.back().moe.experts.resize(experts);
  }
  p.mtp.resize(static_cast<size_t>(config.num_nextn_predict_layers));
  for (MtpParams& m : p.mtp) m.block.moe.experts.resize(experts);
  return p;
}

std::vector<NamedWeight> ListParams(DecoderParams& params) {
  std::vector<NamedWeight> list;
  DecoderParams::Visit(params, [&](const std::string& name, Weight& w) {
    if (!w.value.empty()) list.push_back({name, &w});
  });
  return list;
}

DecoderParams MakeGradients(const ModelConfig& config, DecoderParams& params, const std::function<bool(const std::string&)>& wanted) {
  DecoderParams grads = DecoderParams::For(config);
  VisitPairs(params, grads, [&](const std::string& name, Weight& w, Weight& g) {
    if (!w.value.empty() && wanted(name)) g.value = Tensor(DType::kF32, w.value.shape());
  });
  return grads;
}

DecoderParams MakeBF16Copy(const ModelConfig& config, DecoderParams& params) {
  DecoderParams copy = DecoderParams::For(config);
  VisitPairs(params, copy, [&](const std::string& name, Weight& w, Weight& c) {
    // The router computes in f32, the embedding is only looked up.
    const bool product = w.value.shape().rank() == 2 && !name.ends_with("mlp.gate.weight") && !name.ends_with("embed_tokens.weight");
    if (w.value.empty() || !product) {
      c = w;
      return;
    }
    c.value = Tensor(DType::kBF16, w.value.shape());
    Cast(w.value.view(), c.value.mutable_view());
  });
  return copy;
}

}  // namespace fathom

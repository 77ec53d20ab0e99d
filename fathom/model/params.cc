#include "fathom/model/params.h"

#include <map>

#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

// Visits two parameter sets of the same model side by side.
void VisitPairs(DecoderParams& a, DecoderParams& b, const std::function<void(const std::string&, Weight&, Weight&)>& f) {
  std::vector<Weight*> slots;
  DecoderParams::Visit(b, [&](const std::string&, Weight& w) { slots.push_back(&w); });
  size_t i = 0;
  DecoderParams::Visit(a, [&](const std::string& name, Weight& w) { f(name, w, *slots[i++]); });
}

// Makes a tensor for each weight, once for those that share their memory.
class PerMemory {
 public:
  Weight& Slot(const Weight& w) { return made_[w.value.view().raw()]; }

 private:
  std::map<const std::byte*, Weight> made_;
};

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

void ShareEmbeddingAndHead(DecoderParams& params) {
  for (MtpParams& m : params.mtp) {
    m.embed_tokens = params.embed_tokens;
    m.shared_head_head = params.lm_head;
  }
}

bool IsMtpCopy(const std::string& name) {
  return name.ends_with("shared_head.head.weight") || (name.ends_with("embed_tokens.weight") && name != "model.embed_tokens.weight");
}

int64_t MtpModuleOf(const ModelConfig& config, const std::string& name) {
  for (int64_t k = 0; k < config.num_nextn_predict_layers; ++k) {
    if (name.starts_with(DecoderParams::LayerPrefix(static_cast<size_t>(config.num_hidden_layers + k)))) return k;
  }
  return -1;
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
  PerMemory made;
  VisitPairs(params, grads, [&](const std::string& name, Weight& w, Weight& g) {
    if (w.value.empty() || !wanted(name)) return;
    Weight& slot = made.Slot(w);
    if (slot.value.empty()) slot.value = Tensor(DType::kF32, w.value.shape());
    g = slot;
  });
  return grads;
}

bool IsCopiedToBF16(const std::string& name, const Shape& shape) {
  return shape.rank() == 2 && !name.ends_with("mlp.gate.weight") && !name.ends_with("embed_tokens.weight");
}

DecoderParams MakeBF16Copy(const ModelConfig& config, DecoderParams& params) {
  DecoderParams copy = DecoderParams::For(config);
  PerMemory made;
  VisitPairs(params, copy, [&](const std::string& name, Weight& w, Weight& c) {
    if (w.value.empty() || !IsCopiedToBF16(name, w.value.shape())) {
      c = w;
      return;
    }
    Weight& slot = made.Slot(w);
    if (slot.value.empty()) {
      slot.value = Tensor(DType::kBF16, w.value.shape());
      Cast(w.value.view(), slot.value.mutable_view());
    }
    c = slot;
  });
  return copy;
}

}  // namespace fathom

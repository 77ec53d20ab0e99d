// Every parameter of a model. The same type holds weights, gradients and copies: slots that are found through the model's spec.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "fathom/base/function_ref.h"
#include "fathom/base/pulse.h"
#include "fathom/layers/block.h"
#include "fathom/model/layer_store.h"
#include "fathom/spec/model_spec.h"

namespace fathom {

// A multi-token prediction module (DeepSeek-V3 report, section 2.2): layer num_hidden_layers + k of the hub's checkpoint.
struct MtpParams {
  Weight embed_tokens;  // [V,D] the hub's copy of the main embedding
  Weight enorm, hnorm;  // [D]
  Weight eh_proj;       // [D,2D], embedding first
  BlockParams block;
  Weight shared_head_norm;  // [D]
  Weight shared_head_head;  // [V,D] the hub's copy of lm_head
};

struct DecoderParams {
  Weight embed_tokens;  // [V,D]
  std::vector<BlockParams> layers;
  Weight norm;     // [D]
  Weight lm_head;  // [V,D]
  std::vector<MtpParams> mtp;
  std::shared_ptr<const ModelSpec> spec;
  LayerStore* store = nullptr;  // where layers are not in memory all the time; lives as long as this

  // Empty slots for every parameter of this model.
  static DecoderParams For(const ModelConfig& config);
  // Empty slots for the parameters of the same model.
  static DecoderParams Like(const DecoderParams& other);

  // The slot of a parameter in this model's spec, or in another of the same model.
  Weight& operator[](const ParamSpec& param);
  const Weight& operator[](const ParamSpec& param) const { return const_cast<DecoderParams&>(*this)[param]; }
};

// A layer's parameters or gradients for as long as it runs; layers are numbered as in the hub's names (MTP modules follow the main ones).
class LayerScope {
 public:
  LayerScope(const DecoderParams& p, int64_t layer) : store_(p.store), layer_(layer) {
    Pulse::AtLayer(layer);
    if (store_ != nullptr) store_->Begin(layer_);
  }
  // Who unwinds has nothing more to tell the ranks that share the layer.
  ~LayerScope() noexcept(false) {
    if (store_ != nullptr && std::uncaught_exceptions() == unwinding_) store_->End(layer_);
  }
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;

 private:
  LayerStore* store_;
  int64_t layer_;
  int unwinding_ = std::uncaught_exceptions();
};

// Gives every MTP module the main model's embedding and head in place of copies of its own: one memory under both names.
void ShareEmbeddingAndHead(DecoderParams& params);

// A parameter that has a tensor, and its slot.
struct NamedWeight {
  const ParamSpec* spec;
  Weight* weight;
};
// In the order of the spec.
std::vector<NamedWeight> ListParams(DecoderParams& params);

using ParamFilter = FunctionRef<bool(const ParamSpec&)>;

// Zeroed F32 tensors of the same shapes, for gradients, where wanted(param) says so; the others stay empty. What shares memory in params
// shares it here. Adapters always learn.
DecoderParams MakeGradients(DecoderParams& params, ParamFilter wanted);

// What the forward of a bf16 run reads: what rounded(param) names is rounded to BF16 in memory of its own, the rest is shared with params.
// What shares memory in params shares it here.
DecoderParams MakeBF16Copy(DecoderParams& params, ParamFilter rounded);

}  // namespace fathom

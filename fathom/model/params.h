// Every parameter of a model under its Hugging Face name. The same type holds weights and gradients.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fathom/layers/block.h"

namespace fathom {

// A multi-token prediction module (DeepSeek-V3 report, section 2.2): layer num_hidden_layers + k of the hub's checkpoint.
struct MtpParams {
  Weight embed_tokens;  // [V,D] the hub's copy of the main embedding
  Weight enorm, hnorm;  // [D]
  Weight eh_proj;       // [D,2D], embedding first
  BlockParams block;
  Weight shared_head_norm;  // [D]
  Weight shared_head_head;  // [V,D] the hub's copy of lm_head

  template <class Self, class F>
  static void Visit(Self& self, const std::string& prefix, F&& f) {
    f(prefix + "embed_tokens.weight", self.embed_tokens);
    f(prefix + "enorm.weight", self.enorm);
    f(prefix + "hnorm.weight", self.hnorm);
    f(prefix + "eh_proj.weight", self.eh_proj);
    BlockParams::Visit(self.block, prefix, f);
    f(prefix + "shared_head.norm.weight", self.shared_head_norm);
    f(prefix + "shared_head.head.weight", self.shared_head_head);
  }
};

struct DecoderParams {
  Weight embed_tokens;  // [V,D]
  std::vector<BlockParams> layers;
  Weight norm;     // [D]
  Weight lm_head;  // [V,D]
  std::vector<MtpParams> mtp;

  // Empty slots for every layer and expert of this model.
  static DecoderParams For(const ModelConfig& config);

  // f(name, weight) for every slot, in the order of the checkpoint; slots that this model has no tensor for are empty.
  template <class Self, class F>
  static void Visit(Self& self, F&& f) {
    f("model.embed_tokens.weight", self.embed_tokens);
    for (size_t i = 0; i < self.layers.size(); ++i) BlockParams::Visit(self.layers[i], LayerPrefix(i), f);
    f("model.norm.weight", self.norm);
    f("lm_head.weight", self.lm_head);
    for (size_t k = 0; k < self.mtp.size(); ++k) MtpParams::Visit(self.mtp[k], LayerPrefix(self.layers.size() + k), f);
  }

  static std::string LayerPrefix(size_t layer) { return "model.layers." + std::to_string(layer) + "."; }
};

// Gives every MTP module the main model's embedding and head in place of copies of its own: one memory under both names.
void ShareEmbeddingAndHead(DecoderParams& params);

// Is this the name of an MTP module's copy of the embedding or the head?
bool IsMtpCopy(const std::string& name);

// The MTP module, from 0, that a parameter belongs to; -1: the main model's.
int64_t MtpModuleOf(const ModelConfig& config, const std::string& name);

// Name and slot of every parameter that has a tensor.
struct NamedWeight {
  std::string name;
  Weight* weight;
};
std::vector<NamedWeight> ListParams(DecoderParams& params);

// Zeroed F32 tensors of the same shapes, for gradients, where wanted(name) says so; the others stay empty (frozen). What shares memory in
// params shares it here.
DecoderParams MakeGradients(const ModelConfig& config, DecoderParams& params, const std::function<bool(const std::string&)>& wanted);

// Is the parameter of this name one that MakeBF16Copy rounds? Matrices of products are; the router computes in F32, the embedding is only
// looked up.
bool IsCopiedToBF16(const std::string& name, const Shape& shape);

// What the forward of a bf16 run reads: matrices of products rounded to BF16 in memory of their own; vectors, routers and
// embeddings shared with params. What shares memory in params shares it here.
DecoderParams MakeBF16Copy(const ModelConfig& config, DecoderParams& params);

}  // namespace fathom

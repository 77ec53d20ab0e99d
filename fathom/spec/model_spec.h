// All parameters of a model, described: the one list that validation, initial values, masks, memory plans, copies and conversion go
// through.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "fathom/config/model_config.h"
#include "fathom/spec/param_role.h"
#include "fathom/tensor/shape.h"

namespace fathom {

// One tensor of the hub's layout; scales of FP8 matrices are not parameters.
struct ParamSpec {
  std::string name;  // "model.layers.3.mlp.experts.7.up_proj.weight"
  Shape shape;       // [out, in] or [n]
  ParamRole role;
  int64_t layer = -1;   // as in its name; of an MTP module num_hidden_layers + k. -1: outside the layers
  int64_t expert = -1;  // -1: of no routed expert
  int64_t mtp = -1;     // the MTP module it belongs to, from 0; -1: of the main model

  const RoleFacts& facts() const { return FactsOf(role); }
  bool is_mtp() const { return mtp >= 0; }
  bool is_indexer() const { return IsIndexer(role); }
  bool is_expert() const { return IsExpert(role); }
  bool is_copy() const { return CopyOf(role).has_value(); }
};

// "model.layers.N."
std::string LayerPrefix(int64_t layer);

class ModelSpec {
 public:
  // Throws Error(kInput) beyond 10 million tensors.
  explicit ModelSpec(const ModelConfig& config);
  ModelSpec(ModelSpec&&) = default;  // not copied: the index points into the list

  // In the order of the checkpoint: embedding, layers, norm, head, MTP modules.
  auto begin() const { return params_.begin(); }
  auto end() const { return params_.end(); }
  size_t size() const { return params_.size(); }
  // nullptr: no such parameter.
  const ParamSpec* Find(std::string_view name) const;
  // The parameter outside the layers with this role.
  const ParamSpec& Root(ParamRole role) const;
  // What an MTP module's copy of embedding or head equals on the hub; param itself if it is no copy.
  const ParamSpec& Original(const ParamSpec& param) const;

 private:
  std::vector<ParamSpec> params_;
  std::unordered_map<std::string_view, size_t> by_name_;  // keys are the specs' own names
};

// Elements of a model's parameters; router biases and the MTP modules' copies of embedding and head are not counted.
struct ParameterCounts {
  int64_t total = 0;   // of the main model
  int64_t active = 0;  // of these, what one token meets: num_experts_per_tok of the routed experts, everything else
  int64_t mtp = 0;     // of the MTP modules
};
ParameterCounts CountParameters(const ModelConfig& config);

}  // namespace fathom

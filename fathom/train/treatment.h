// What a run does with each parameter: the one predicate behind gradients, moments, copies, the clipping norm, memory and saving.
#pragma once

#include <string_view>
#include <unordered_set>

#include "fathom/spec/model_spec.h"
#include "fathom/train/options.h"

namespace fathom {

enum class Treatment {
  kFrozen,    // stays as it is stored: no gradient, and no memory where it is mapped from a file
  kMeasured,  // likewise, but its gradient counts in the clipping norm (MaxText's way with a mask)
  kCounted,   // a router bias, moved by counting tokens
  kTrained,   // by its gradient
};

class Treatments {
 public:
  // spec: outlives this. MTP modules beyond options.mtp.modules and, unless a flag asks for them, indexers are carried along frozen; the
  // indexers' warm-up trains nothing else; trainable_parameters_mask freezes what it does not match. A copy that shares its memory is
  // treated as what it copies. With adapters lora.lora_module_path chooses among the matrices that the run would train.
  // Throws Error(kUsage): a pattern that matches none of them.
  Treatments(const ModelSpec& spec, const TrainOptions& options);

  Treatment Of(const ParamSpec& param) const;
  bool HasGradient(const ParamSpec& param) const { return Of(param) == Treatment::kTrained || Of(param) == Treatment::kMeasured; }
  // Does nothing change its value?
  bool Stays(const ParamSpec& param) const { return Of(param) == Treatment::kFrozen || Of(param) == Treatment::kMeasured; }
  // Does it get an adapter? With adapters every parameter itself is frozen.
  bool HasAdapter(const ParamSpec& param) const { return lora_ && matched_.contains(param.name); }
  // Does a bf16 run read a rounded copy of it? What stays is read as it is stored.
  bool HasBF16Copy(const ParamSpec& param) const { return rounds_ && param.facts().rounded && !Stays(param); }

 private:
  bool InScope(const ParamSpec& param) const;
  void MatchMask(const std::vector<std::string>& patterns);
  void MatchModules(const LoraOptions& lora);

  const ModelSpec& spec_;
  int64_t mtp_modules_;
  bool copies_share_, trains_indexers_, indexers_alone_, counts_, rounds_, masked_, measures_, lora_;
  std::unordered_set<std::string_view> matched_;
};

// Do the MTP modules use the main model's embedding and head, so that their copies take no memory?
bool SharesMtpHeads(const TrainOptions& options);

}  // namespace fathom

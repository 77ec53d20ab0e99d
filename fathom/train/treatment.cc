#include "fathom/train/treatment.h"

#include "fathom/checkpoint/hub/peft.h"
#include "fathom/optim/name_mask.h"

namespace fathom {

bool SharesMtpHeads(const TrainOptions& options) {
  return (options.mtp.modules > 0 || options.mtp.eval_module > 0) && !options.mtp_own_head;
}

Treatments::Treatments(const ModelSpec& spec, const TrainOptions& options)
    : spec_(spec),
      mtp_modules_(options.mtp.modules),
      copies_share_(SharesMtpHeads(options)),
      trains_indexers_(options.indexer.factor > 0),
      indexers_alone_(options.indexer.dense_attention),
      counts_(options.bias_update_rate > 0),
      rounds_(options.compute == DType::kBF16 && options.weights == DType::kF32),
      masked_(!options.trainable_mask.empty()),
      measures_(options.norm_of_masked),
      lora_(options.lora.enabled) {
  if (lora_)
    MatchModules(options.lora);
  else
    MatchMask(options.trainable_mask);
}

void Treatments::MatchMask(const std::vector<std::string>& patterns) {
  std::vector<std::string> names;
  for (const ParamSpec& param : spec_) {
    if (InScope(param)) names.push_back(param.name);
  }
  const std::vector<bool> matched = MatchNames("trainable_parameters_mask", patterns, names);
  for (size_t i = 0; i < names.size(); ++i) {
    if (matched[i]) matched_.insert(spec_.Find(names[i])->name);
  }
}

// Names as peft has them, without ".weight".
void Treatments::MatchModules(const LoraOptions& lora) {
  std::vector<std::string> names;
  for (const ParamSpec& param : spec_) {
    const AdapterUse use = param.facts().adapter;
    const bool possible = lora.module_path.empty() ? use == AdapterUse::kByDefault : use != AdapterUse::kNever;
    if (possible && InScope(param)) names.push_back(ModuleOf(param));
  }
  const std::vector<bool> matched = MatchNames("lora.lora_module_path", {lora.module_path}, names);
  for (size_t i = 0; i < names.size(); ++i) {
    if (matched[i]) matched_.insert(spec_.Find(names[i] + ".weight")->name);
  }
}

bool Treatments::InScope(const ParamSpec& param) const {
  if (param.mtp >= mtp_modules_) return false;
  return param.is_indexer() ? trains_indexers_ : !indexers_alone_;
}

Treatment Treatments::Of(const ParamSpec& param) const {
  if (param.is_copy() && copies_share_) return Of(spec_.Original(param));
  if (lora_ || !InScope(param)) return Treatment::kFrozen;
  const bool wanted = !masked_ || matched_.contains(param.name);
  if (LearnsByCounting(param.role)) return wanted && counts_ ? Treatment::kCounted : Treatment::kFrozen;
  return wanted ? Treatment::kTrained : measures_ ? Treatment::kMeasured : Treatment::kFrozen;
}

}  // namespace fathom

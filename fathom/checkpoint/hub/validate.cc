#include "fathom/checkpoint/hub/validate.h"

#include <algorithm>
#include <array>
#include <set>

#include "fathom/base/error.h"

namespace fathom {
namespace {

bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16; }
bool IsTolerated(std::string_view name) { return name.ends_with(".rotary_emb.inv_freq"); }

// quantization_config lists modules that stay unquantised.
bool NamesExceptions(const ModelConfig& config) {
  if (!config.fp8 || !config.raw.contains("quantization_config")) return false;
  const Json& quantization = config.raw["quantization_config"];
  return std::ranges::any_of(std::array{"modules_to_not_convert", "ignored_layers"}, [&](const char* key) {
    return quantization.contains(key) && quantization[key].is_array() && !quantization[key].empty();
  });
}

class Comparison {
 public:
  Comparison(const TensorFolder& folder, const ModelConfig& config, const ValidateOptions& options,
             const std::function<void(const std::string&)>& report)
      : folder_(folder), config_(config), report_(report), expected_(config) {
    mtp_may_lack_ = !Any(&ParamSpec::is_mtp);
    indexer_may_lack_ = options.allow_missing_indexer && !Any(&ParamSpec::is_indexer);
    names_exceptions_ = NamesExceptions(config);
    copies_may_lack_ = !Any(&ParamSpec::is_copy);
  }

  void Run() {
    for (const ParamSpec& tensor : expected_) CheckOne(tensor);
    for (const std::string& name : folder_.names()) {
      if (!known_.contains(name) && !IsTolerated(name)) {
        Report(name, fmt::format("{} {} is extra: config.json implies no such tensor", DTypeName(folder_.Find(name)->dtype),
                                 folder_.Find(name)->shape.ToString()));
      }
    }
  }

 private:
  bool Any(bool (ParamSpec::*member)() const) const {
    return std::ranges::any_of(expected_, [&](const ParamSpec& t) { return (t.*member)() && folder_.Has(t.name); });
  }
  bool MayLack(const ParamSpec& t) const {
    return (t.is_copy() && copies_may_lack_) || (t.is_mtp() && mtp_may_lack_) || (t.is_indexer() && indexer_may_lack_);
  }
  void Report(const std::string& name, const std::string& what) const {
    report_(fmt::format("{}: tensor {}: {}", folder_.FileOf(name).path().string(), name, what));
  }

  void CheckOne(const ParamSpec& tensor) {
    known_.insert(tensor.name);
    const TensorEntry* found = folder_.Find(tensor.name);
    if (found == nullptr) {
      if (!MayLack(tensor))
        report_(fmt::format("{}: tensor {} is missing, expected {}", folder_.dir().string(), tensor.name, tensor.shape.ToString()));
      return;
    }
    if (found->dtype == DType::kF8E4M3) known_.insert(tensor.name + std::string(kScaleSuffix));
    if (found->shape != tensor.shape) {
      return Report(tensor.name, fmt::format("shape is {}, config.json implies {}", found->shape.ToString(), tensor.shape.ToString()));
    }
    CheckDType(tensor, found->dtype);
  }

  void CheckDType(const ParamSpec& tensor, DType found) {
    if (tensor.facts().storage == HubStorage::kFp8 && config_.fp8) {
      if (found == DType::kF8E4M3) return CheckScale(tensor.name);
      if (names_exceptions_ && IsFloat(found)) return;
      return Report(tensor.name, fmt::format("dtype is {}, config.json implies F8_E4M3 (quantization_config)", DTypeName(found)));
    }
    if (IsFloat(found)) return;
    const char* hint = found == DType::kF8E4M3 && !config_.fp8 ? "; config.json has no quantization_config" : "";
    Report(tensor.name, fmt::format("dtype is {}, expected F32, BF16 or F16{}", DTypeName(found), hint));
  }

  void CheckScale(const std::string& name) {
    try {
      folder_.GetWeight(name);
    } catch (const Error& e) {
      report_(e.what());
    }
  }

  const TensorFolder& folder_;
  const ModelConfig& config_;
  const std::function<void(const std::string&)>& report_;
  const ModelSpec expected_;
  bool mtp_may_lack_, indexer_may_lack_, copies_may_lack_, names_exceptions_;
  std::set<std::string> known_;
};

}  // namespace

void CompareWithConfig(const TensorFolder& folder, const ModelConfig& config, const ValidateOptions& options,
                       const std::function<void(const std::string&)>& report) {
  Comparison(folder, config, options, report).Run();
}

void ValidateAgainstConfig(const Checkpoint& checkpoint) { ValidateAgainstConfig(checkpoint, checkpoint.config()); }

void ValidateAgainstConfig(const TensorFolder& folder, const ModelConfig& config, const ValidateOptions& options) {
  std::string first;
  int64_t others = -1;
  CompareWithConfig(folder, config, options, [&](const std::string& message) {
    if (++others == 0) first = message;
  });
  if (others == 0) throw Error(ErrorCode::kInput, first);
  if (others > 0) Throw(ErrorCode::kInput, "{} (and {} more; fathom check files lists them)", first, others);
}

}  // namespace fathom

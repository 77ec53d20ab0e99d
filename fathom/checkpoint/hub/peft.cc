#include "fathom/checkpoint/hub/peft.h"

#include <cmath>
#include <set>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/checkpoint/safetensors/safetensors.h"
#include "fathom/kernels/elementwise/value_checks.h"
#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "base_model.model.", kSuffixA = ".lora_A.weight", kSuffixB = ".lora_B.weight";

class Reader {
 public:
  Reader(const fs::path& dir, const ModelSpec& spec) : dir_(dir), spec_(spec) {}

  PeftAdapter Read() {
    ReadConfig();
    file_ = SafetensorsFile::Open(dir_ / kAdapterFile);
    for (const TensorEntry& entry : file_->entries()) {
      const std::string module = ModuleOfTensor(entry.name);
      (entry.name.ends_with(kSuffixA) ? adapter_.modules[module].a : adapter_.modules[module].b) = Values(entry);
    }
    for (auto& [module, low_rank] : adapter_.modules) CheckModule(module, low_rank);
    if (adapter_.modules.empty()) Fail("holds no adapter");
    return std::move(adapter_);
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const { Throw(ErrorCode::kInput, "{}: {}", (dir_ / kAdapterFile).string(), what); }

  void ReadConfig() {
    const fs::path path = dir_ / kAdapterConfig;
    if (!fs::exists(path)) Throw(ErrorCode::kInput, "{}: no adapter here: {} is missing", dir_.string(), kAdapterConfig);
    const Json config = ReadJsonFile(path);
    const auto fail = [&](const std::string& what) { Throw(ErrorCode::kInput, "{}: {}", path.string(), what); };
    if (!config.is_object() || config.value("peft_type", Json()) != "LORA") fail("peft_type is not LORA");
    for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias"}) {
      if (config.value(key, Json()) == true) fail(fmt::format("{} is true; only plain LoRA can be used", key));
    }
    for (const char* key : {"rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication", "megatron_config"}) {
      if (config.contains(key) && !config[key].is_null() && !config[key].empty())
        fail(fmt::format("{} is set; only plain LoRA can be used", key));
    }
    if (config.value("bias", Json("none")) != "none") fail("bias is not none; only plain LoRA can be used");
    const Json rank = config.value("r", Json()), alpha = config.value("lora_alpha", Json());
    if (!rank.is_number_integer() || rank.get<int64_t>() < 1 || !alpha.is_number()) fail("r and lora_alpha must be numbers, r at least 1");
    rank_ = rank.get<int64_t>();
    const auto r = static_cast<double>(rank_);
    factor_ = alpha.get<double>() / (config.value("use_rslora", Json()) == true ? std::sqrt(r) : r);
    if (!std::isfinite(factor_)) fail("lora_alpha is not finite");
  }

  std::string ModuleOfTensor(const std::string& name) const {
    const bool a = name.ends_with(kSuffixA);
    if (!name.starts_with(kPrefix) || (!a && !name.ends_with(kSuffixB)))
      Fail(fmt::format("tensor {}: expected is {}MODULE{} or {}", name, kPrefix, kSuffixA, kSuffixB));
    return name.substr(kPrefix.size(), name.size() - kPrefix.size() - kSuffixA.size());
  }

  Tensor Values(const TensorEntry& entry) const {
    const bool is_float = entry.dtype == DType::kF32 || entry.dtype == DType::kBF16 || entry.dtype == DType::kF16;
    if (!is_float || entry.shape.rank() != 2)
      Fail(fmt::format("tensor {}: {} {}, expected is a matrix of floats", entry.name, DTypeName(entry.dtype), entry.shape.ToString()));
    const Tensor stored = file_->Get(entry);
    Tensor values(DType::kF32, entry.shape);
    Cast(stored.view(), values.mutable_view());
    if (CountValues(stored.view()).first_non_finite >= 0) Fail(fmt::format("tensor {}: values that are not finite", entry.name));
    return values;
  }

  void CheckModule(const std::string& module, LowRank& low_rank) const {
    const ParamSpec* param = spec_.Find(module + ".weight");
    if (param == nullptr || param->facts().adapter == AdapterUse::kNever)
      Fail(fmt::format("{}: the model has no such module that takes an adapter", module));
    const Shape a{rank_, param->shape[1]}, b{param->shape[0], rank_};
    if (low_rank.a.empty() || low_rank.b.empty()) Fail(fmt::format("{}: lora_{} is missing", module, low_rank.a.empty() ? "A" : "B"));
    if (low_rank.a.shape() != a || low_rank.b.shape() != b) {
      Fail(fmt::format("{}: lora_A {} and lora_B {}, expected are {} and {}", module, low_rank.a.shape().ToString(),
                       low_rank.b.shape().ToString(), a.ToString(), b.ToString()));
    }
    low_rank.factor = factor_;
  }

  fs::path dir_;
  const ModelSpec& spec_;
  int64_t rank_ = 0;
  double factor_ = 0;
  std::shared_ptr<const SafetensorsFile> file_;
  PeftAdapter adapter_;
};

}  // namespace

std::string ModuleOf(const ParamSpec& param) { return param.name.substr(0, param.name.rfind('.')); }

std::string PeftNameA(const std::string& module) { return std::string(kPrefix) + module + std::string(kSuffixA); }
std::string PeftNameB(const std::string& module) { return std::string(kPrefix) + module + std::string(kSuffixB); }

PeftAdapter ReadPeftAdapter(const fs::path& dir, const ModelSpec& spec) { return Reader(dir, spec).Read(); }

Json PeftConfig(const PeftSettings& s) {
  return {{"peft_type", "LORA"},   {"task_type", "CAUSAL_LM"}, {"base_model_name_or_path", s.base}, {"r", s.rank},
          {"lora_alpha", s.alpha}, {"lora_dropout", 0.0},      {"target_modules", s.modules},       {"bias", "none"},
          {"use_rslora", false},   {"use_dora", false},        {"fan_in_fan_out", false},           {"inference_mode", true}};
}

}  // namespace fathom

// Low-rank adapters on disk, as Hugging Face's peft writes them: adapter_config.json and adapter_model.safetensors, whose tensors are
// called base_model.model.<hub name of the module>.lora_A.weight [r,K] and .lora_B.weight [N,r].
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "fathom/base/json.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/spec/model_spec.h"
#include "fathom/tensor/tensor.h"

namespace fathom {

// "model.layers.0.self_attn.o_proj" for its weight.
std::string ModuleOf(const ParamSpec& param);

struct PeftAdapter {
  std::map<std::string, LowRank> modules;  // by module; A and B F32 in memory of their own
};

// The adapter in this folder, each of whose modules must be a matrix of the model. Throws Error(kInput), naming the file and the tensor: no
// adapter there, not LoRA, a variant that computes something else (DoRA, transposed layers, biases), a module that the model lacks or that
// takes no adapter, a shape that does not fit, A without B, a value that is not finite.
PeftAdapter ReadPeftAdapter(const std::filesystem::path& dir, const ModelSpec& spec);

// What adapter_config.json says of a run's adapter.
struct PeftSettings {
  int64_t rank = 0;
  double alpha = 0;
  std::string base;                  // the model it belongs to
  std::vector<std::string> modules;  // that have one
};
Json PeftConfig(const PeftSettings& settings);

// "base_model.model.<module>.lora_A.weight" and B's.
std::string PeftNameA(const std::string& module);
std::string PeftNameB(const std::string& module);

}  // namespace fathom

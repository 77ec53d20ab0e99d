// A model on disk in the Hugging Face layout: config.json and its tensors.
#pragma once

#include "fathom/checkpoint/safetensors/tensor_folder.h"
#include "fathom/config/model_config.h"

namespace fathom {

class Checkpoint : public TensorFolder {
 public:
  // Throws Error(kInput) as TensorFolder::Open and ReadModelConfig. That tensors and config agree is ValidateAgainstConfig's question.
  static Checkpoint Open(const std::filesystem::path& dir) { return Checkpoint{ReadModelConfig(dir), TensorFolder::Open(dir)}; }

  const ModelConfig& config() const { return config_; }

 private:
  Checkpoint(ModelConfig config, TensorFolder folder) : TensorFolder(std::move(folder)), config_(std::move(config)) {}
  ModelConfig config_;
};

}  // namespace fathom

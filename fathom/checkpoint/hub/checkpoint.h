// A model on disk in the Hugging Face layout: config.json and its tensors. The one door through which every command opens such a folder.
#pragma once

#include <functional>

#include "fathom/checkpoint/safetensors/tensor_folder.h"
#include "fathom/config/generation_config.h"
#include "fathom/config/model_config.h"

namespace fathom {

struct OpenOptions {
  bool allow_missing_indexer = false;           // no tensor of an indexer need be there
  std::vector<std::string> ignore_config_keys;  // fields of config.json that are not understood and that the user vouches for
  // What the user says about the model, who may change what no tensor depends on; where names the config.json.
  std::function<void(ModelConfig& model, const std::string& where)> adjust;
};

class Checkpoint : public TensorFolder {
 public:
  // Every tensor that the config implies is there, with its shape and a dtype that it can have, and no other (CompareWithConfig). MTP
  // modules of which no tensor is there are left out of config(), with one line of information. Throws Error(kInput) as TensorFolder::Open
  // and ReadModelConfig do, for tensors that do not fit, and for a run's folder, naming its newest checkpoint.
  static Checkpoint Open(const std::filesystem::path& dir, const OpenOptions& options = {});

  // What the folder holds. generation_config.json decides on eos_token_ids.
  const ModelConfig& config() const { return config_; }
  const GenerationConfig& generation() const { return generation_; }

 private:
  Checkpoint(ModelConfig config, TensorFolder folder) : TensorFolder(std::move(folder)), config_(std::move(config)) {}
  ModelConfig config_;
  GenerationConfig generation_;
};

// Leaves out the MTP modules that config names if no tensor of them is in the folder, as transformers saves a model. Returns a line that
// says so, "" if nothing changed.
std::string LeaveOutAbsentMtp(const TensorFolder& folder, ModelConfig& config);

}  // namespace fathom

#include "fathom/checkpoint/hub/checkpoint.h"

#include <algorithm>

#include "fathom/base/log.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/checkpoint/hub/validate.h"

namespace fathom {

std::string LeaveOutAbsentMtp(const TensorFolder& folder, ModelConfig& config) {
  const int64_t named = config.num_nextn_predict_layers;
  const ModelSpec spec(config);
  if (named == 0 || std::ranges::any_of(spec, [&](const ParamSpec& p) { return p.is_mtp() && folder.Has(p.name); })) return "";
  config.num_nextn_predict_layers = 0;
  return fmt::format(
      "{}: no tensor of the MTP module (model.layers.{}.*), though config.json says num_nextn_predict_layers {}: used without",
      folder.dir().string(), config.num_hidden_layers, named);
}

Checkpoint Checkpoint::Open(const std::filesystem::path& dir, const OpenOptions& options) {
  RefuseRunFolder(dir);
  ModelConfig config = ReadModelConfig(dir, options.ignore_config_keys);
  if (options.adjust) options.adjust(config, (dir / "config.json").string());
  Checkpoint checkpoint(std::move(config), TensorFolder::Open(dir));
  checkpoint.generation_ = ReadGenerationConfig(dir);
  if (!checkpoint.generation_.eos_token_ids.empty()) checkpoint.config_.eos_token_ids = checkpoint.generation_.eos_token_ids;
  const std::string left_out = LeaveOutAbsentMtp(checkpoint, checkpoint.config_);
  if (!left_out.empty()) spdlog::info("{}", left_out);
  ValidateAgainstConfig(checkpoint, checkpoint.config(), {.allow_missing_indexer = options.allow_missing_indexer});
  return checkpoint;
}

}  // namespace fathom

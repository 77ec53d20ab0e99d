#include "fathom/train/checkpoints.h"

#include <cstring>

#include "fathom/checkpoint/hub/train_state.h"

namespace fathom {
namespace {

std::vector<NamedTensor> Params(TrainSession& session) {
  std::vector<NamedTensor> tensors;
  for (const NamedWeight& w : ListParams(session.params())) tensors.push_back({w.name, w.weight->value.view()});
  return tensors;
}

// config.json as it was read, but for what the weights are now.
Json ConfigOf(const ModelConfig& config, DType weights) {
  Json json = config.raw.is_null() ? ModelConfigToJson(config) : config.raw;
  json["torch_dtype"] = weights == DType::kBF16 ? "bfloat16" : "float32";
  json.erase("quantization_config");
  if (config.num_nextn_predict_layers > 0 || json.contains("num_nextn_predict_layers"))
    json["num_nextn_predict_layers"] = config.num_nextn_predict_layers;
  return json;
}

void CopyInto(View to, const Tensor& from) { std::memcpy(to.raw(), from.view().raw(), static_cast<size_t>(to.NumBytes())); }

}  // namespace

void SaveRun(const TrainOptions& options, const ModelConfig& config, const std::vector<std::filesystem::path>& companions,
             TrainSession& session, const Json& data_state, int64_t step) {
  TrainState state{.step = step};
  state.values[kOptimizerSteps] = session.optimizer().step_count();
  state.values["data"] = data_state;
  for (const auto& moments : session.optimizer().moments()) {
    state.slots["mu"].push_back({moments.name, moments.m});
    state.slots["nu"].push_back({moments.name, moments.v});
  }
  SaveTrainCheckpoint(options.checkpoints_dir(), ConfigOf(config, options.weights), Params(session), state,
                      {.max_shard_size = options.max_shard_size, .companions = companions, .overwrite = true});
  PruneCheckpoints(options.checkpoints_dir(), options.keep);
}

std::optional<ResumePoint> FindResumePoint(const TrainOptions& options) {
  const auto step = options.checkpointing ? LatestStep(options.checkpoints_dir()) : std::nullopt;
  const std::filesystem::path dir = step ? StepFolder(options.checkpoints_dir(), *step) : options.load_full_state_path;
  if (dir.empty()) return std::nullopt;
  const SavedTrainState state = SavedTrainState::Open(dir);
  return ResumePoint{dir, state.step(), step ? state.values().value("data", Json()) : Json()};
}

void RestoreOptimizer(const ResumePoint& point, TrainSession& session) {
  const SavedTrainState state = SavedTrainState::Open(point.dir);
  const bool wants_moments = !session.optimizer().moments().empty();
  if (wants_moments != state.HasSlot("mu")) {
    Throw(ErrorCode::kInput, "{}: holds {} moments, and opt_type wants {}: it is another optimizer's", state.file().string(),
          wants_moments ? "no" : "AdamW's", wants_moments ? "them" : "none");
  }
  for (const auto& moments : session.optimizer().moments()) {
    CopyInto(moments.m, state.Get("mu", moments.name, moments.m.dtype(), moments.m.shape()));
    CopyInto(moments.v, state.Get("nu", moments.name, moments.v.dtype(), moments.v.shape()));
  }
  const auto steps = state.values().find(kOptimizerSteps);
  if (steps == state.values().end() || !steps->is_number_integer()) {
    Throw(ErrorCode::kInput, "{}: no {} in it", state.file().string(), kOptimizerSteps);
  }
  session.optimizer().set_step_count(steps->get<int64_t>());
}

}  // namespace fathom

#include "fathom/train/checkpoints.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "fathom/base/progress.h"
#include "fathom/checkpoint/hub/staged_folder.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/model/adapters.h"

namespace fathom {
namespace {

constexpr const char *kSpikes = "spikes", *kMuonName = "muon";

// What becomes of a model on disk: what the run moves from memory, what it leaves alone from the file that was read.
class SavedModel {
 public:
  SavedModel(const LoadedModel& loaded, TrainSession& session) : loaded_(loaded), session_(session) {
    for (const NamedWeight& w : ListParams(session.params())) Add(*w.spec);
  }
  const std::vector<NamedTensor>& tensors() const { return tensors_; }

  // config.json as it was read, but for what the weights are now.
  Json Config() const {
    const ModelConfig& config = loaded_.config;
    Json json = config.raw.is_null() ? ModelConfigToJson(config) : config.raw;
    SetStoredDType(has_f32_ ? "float32" : "bfloat16", json);
    if (!has_fp8_) {
      json.erase("quantization_config");
    } else if (!unquantized_.empty()) {
      Json& modules = json["quantization_config"]["modules_to_not_convert"];
      std::set<std::string> names = unquantized_;
      if (modules.is_array()) names.insert(modules.begin(), modules.end());
      modules = names;
    }
    if (config.num_nextn_predict_layers > 0 || json.contains("num_nextn_predict_layers"))
      json["num_nextn_predict_layers"] = config.num_nextn_predict_layers;
    return json;
  }

 private:
  bool IsStored(const ParamSpec& param) const {
    return session_.treatments().Stays(param) && loaded_.stored && loaded_.stored->Has(param.name);
  }

  void Add(const ParamSpec& param) {
    const ParamSpec& original = session_.params().spec->Original(param);
    const bool follows = loaded_.followers.contains(param.name) && !IsStored(original);
    if (!follows && IsStored(param)) {
      AddStored(param, param.name);
      if (tensors_.back().value.dtype() == DType::kF8E4M3) AddStored(param, param.name + std::string(kScaleSuffix));
    } else {
      Push(param, {param.name, session_.params()[follows ? original : param].value.view()});
    }
  }
  void AddStored(const ParamSpec& param, const std::string& name) { Push(param, {name, loaded_.stored->Get(name).view()}); }

  void Push(const ParamSpec& param, NamedTensor tensor) {
    const DType dtype = tensor.value.dtype();
    const bool scale = tensor.name != param.name;
    has_fp8_ |= dtype == DType::kF8E4M3;
    has_f32_ |= dtype == DType::kF32 && !scale && param.facts().storage != HubStorage::kF32;
    if (param.facts().storage == HubStorage::kFp8 && dtype != DType::kF8E4M3 && !scale)
      unquantized_.insert(param.name.substr(0, param.name.rfind('.')));
    tensors_.push_back(std::move(tensor));
  }

  const LoadedModel& loaded_;
  TrainSession& session_;
  std::vector<NamedTensor> tensors_;
  std::set<std::string> unquantized_;  // modules whose matrix an FP8 checkpoint would hold as FP8
  bool has_fp8_ = false, has_f32_ = false;
};

// The run's adapters as a PEFT folder has them; the weights that they stand beside are not saved.
class SavedAdapter {
 public:
  SavedAdapter(const TrainOptions& options, TrainSession& session) {
    PeftSettings settings{options.lora.rank, options.lora.alpha, options.load_parameters_path.string(), {}};
    for (const auto& [param, adapter] : ListAdapters(session.params())) {
      settings.modules.push_back(ModuleOf(*param));
      tensors_.push_back({PeftNameA(settings.modules.back()), adapter->a.view()});
      tensors_.push_back({PeftNameB(settings.modules.back()), adapter->b.view()});
    }
    config_ = PeftConfig(settings);
  }
  const Json& config() const { return config_; }
  const std::vector<NamedTensor>& tensors() const { return tensors_; }

 private:
  Json config_;
  std::vector<NamedTensor> tensors_;
};

// A state without them, of a run without the rule, leaves it at its start.
void RestoreSpikes(const SavedTrainState& state, SpikeGuard* spikes) {
  const auto saved = state.values().find(kSpikes);
  if (spikes == nullptr || saved == state.values().end()) return;
  try {
    if (spikes->Restore(saved->at("count"), saved->at("losses"), saved->at("grad_norms"))) return;
  } catch (const Json::exception&) {
    Throw(ErrorCode::kInput, "{}: {} is damaged", state.file().string(), kSpikes);
  }
  Throw(ErrorCode::kInput, "{}: {} is of another skip_step_interval", state.file().string(), kSpikes);
}

void CopyInto(View to, const Tensor& from) { std::memcpy(to.raw(), from.view().raw(), static_cast<size_t>(to.NumBytes())); }

}  // namespace

PendingSave PrepareSave(const TrainOptions& options, const LoadedModel& loaded, const std::vector<std::filesystem::path>& companions,
                        TrainSession& session, const Json& data_state, int64_t step) {
  PendingSave save{.folder = options.checkpoints_dir(), .keep = options.keep, .state = {.step = step}};
  save.state.values[kOptimizerSteps] = session.optimizer().step_count();
  save.state.values["data"] = data_state;
  if (session.optimizer().type() == OptimizerType::kMuon) save.state.values[kOptimizerName] = kMuonName;
  if (const SpikeGuard* spikes = session.optimizer().spikes())
    save.state.values[kSpikes] = {{"count", spikes->count()}, {"losses", spikes->losses()}, {"grad_norms", spikes->grad_norms()}};
  for (const auto& moments : session.optimizer().moments()) {
    save.state.slots["mu"].push_back({moments.name, moments.m});
    if (!moments.v.empty()) save.state.slots["nu"].push_back({moments.name, moments.v});
  }
  if (options.lora.enabled) {
    const SavedAdapter adapter(options, session);
    save.config = adapter.config();
    save.tensors = adapter.tensors();
    save.options = {.overwrite = true, .adapter = true};
  } else {
    const SavedModel model(loaded, session);
    save.config = model.Config();
    save.tensors = model.tensors();
    save.options = {.max_shard_size = options.max_shard_size, .companions = companions, .overwrite = true};
  }
  return save;
}

void WriteSave(const PendingSave& save) {
  SaveTrainCheckpoint(save.folder, save.config, save.tensors, save.state, save.options);
  PruneCheckpoints(save.folder, save.keep);
}

int64_t CheckpointBytes(const LoadedModel& loaded, const std::vector<std::filesystem::path>& companions, TrainSession& session) {
  const SavedModel model(loaded, session);
  int64_t bytes = 0;
  for (const NamedTensor& t : model.tensors()) bytes += t.value.NumBytes();
  for (const auto& moments : session.optimizer().moments()) bytes += moments.m.NumBytes() + (moments.v.empty() ? 0 : moments.v.NumBytes());
  for (const auto& file : companions) bytes += static_cast<int64_t>(std::filesystem::file_size(file));
  return bytes;
}

int64_t NewCheckpoints(const TrainOptions& options, int64_t first_step) {
  const int64_t last = options.steps - 1, period = options.checkpoint_period;
  if (!options.checkpointing || last < first_step) return 0;
  int64_t saves = options.save_on_completion ? 1 : 0;
  if (period > 0) {
    const bool last_is_due = last > 0 && last % period == 0;
    saves += last / period - std::max<int64_t>(first_step - 1, 0) / period - (last_is_due ? saves : 0);
  }
  if (options.keep == 0) return saves;
  const auto there = std::ssize(CompleteSteps(options.checkpoints_dir()));
  return std::min(saves, std::max<int64_t>(options.keep + 1 - there, 1));  // the oldest goes once the newest is there
}

void CheckDiskForCheckpoints(const std::filesystem::path& folder, int64_t count, int64_t bytes) {
  const auto free = FreeSpace(folder);
  const double needed = static_cast<double>(count) * static_cast<double>(bytes);
  if (!free || static_cast<double>(*free) >= needed) return;
  Throw(ErrorCode::kResource,
        "{}: {} checkpoints of {} at a time: {} are needed, {} are free on this disk; a smaller max_num_checkpoints_to_keep, a larger "
        "checkpoint_period, another base_output_directory or enable_checkpointing=false helps",
        folder.string(), count, FormatBytes(static_cast<double>(bytes)), FormatBytes(needed), FormatBytes(static_cast<double>(*free)));
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
  const bool muon = session.optimizer().type() == OptimizerType::kMuon;
  if (muon != (state.values().value(kOptimizerName, "") == kMuonName))
    Throw(ErrorCode::kInput, "{}: {} opt_type=muon; give the optimizer that it is of", state.file().string(), muon ? "not of" : "of");
  const bool wants_moments = !session.optimizer().moments().empty();
  if (wants_moments != state.HasSlot("mu")) {
    Throw(ErrorCode::kInput, "{}: holds {} moments, and opt_type wants {}: it is another optimizer's", state.file().string(),
          wants_moments ? "no" : "AdamW's", wants_moments ? "them" : "none");
  }
  for (const auto& moments : session.optimizer().moments()) {
    CopyInto(moments.m, state.Get("mu", moments.name, moments.m.dtype(), moments.m.shape()));
    if (!moments.v.empty()) CopyInto(moments.v, state.Get("nu", moments.name, moments.v.dtype(), moments.v.shape()));
  }
  const auto steps = state.values().find(kOptimizerSteps);
  if (steps == state.values().end() || !steps->is_number_integer()) {
    Throw(ErrorCode::kInput, "{}: no {} in it", state.file().string(), kOptimizerSteps);
  }
  session.optimizer().set_step_count(steps->get<int64_t>());
  RestoreSpikes(state, session.optimizer().spikes());
}

}  // namespace fathom

#include "fathom/train/checkpoints.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "fathom/base/progress.h"
#include "fathom/checkpoint/hub/staged_folder.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/model/adapters.h"
#include "fathom/train/base_identity.h"

namespace fathom {
namespace {

constexpr const char *kSpikes = "spikes", *kMuonName = "muon", *kBase = "base";

// What a rank saves of a tensor, of which `kept` is the region that it keeps: it, if it is the first rank that does.
SavedTensor SavedPart(TensorInfo whole, const Region& region, bool first, const Tensor& kept) {
  SavedTensor saved(std::move(whole));
  if (kept.empty()) return saved;
  saved.info.dtype = kept.dtype();
  saved.row = region.row_begin;
  saved.column = region.column_begin;
  if (first) saved.part = kept;
  return saved;
}

// The same of an adapter's factor or its moments.
SavedTensor PartOfFactor(const TrainSession& session, TensorInfo whole, const ParamSpec& param, Factor factor, ConstView kept) {
  const int64_t rank = whole.shape[factor == Factor::kA ? 0 : 1];
  SavedTensor saved(std::move(whole));
  if (kept.empty()) return saved;
  const Sharding& sharding = session.placement().sharding();
  const Region region = sharding.Computed(param, factor, rank);
  saved.info.dtype = kept.dtype();
  saved.row = region.row_begin;
  saved.column = region.column_begin;
  if (sharding.IsFirst(param, factor)) saved.part = kept;
  return saved;
}

// What becomes of a model on disk: what the run moves from memory, what it leaves alone from the file that was read.
class SavedModel {
 public:
  SavedModel(const TrainOptions& options, const LoadedModel& loaded, TrainSession& session)
      : options_(options), loaded_(loaded), session_(session) {
    for (const ParamSpec& param : *session.params().spec) {
      if (Exists(param)) Add(param);
    }
  }
  const std::vector<SavedTensor>& tensors() const { return tensors_; }

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

  // What another rank holds is a part of the model, too.
  bool Exists(const ParamSpec& param) const {
    return !session_.params()[param].value.empty() || !session_.placement().sharding().Holds(param);
  }

  void Add(const ParamSpec& param) {
    const ParamSpec& original = session_.params().spec->Original(param);
    const bool follows = loaded_.followers.contains(param.name) && !IsStored(original);
    if (!follows && IsStored(param)) {
      AddStored(param, param.name);
      if (tensors_.back().info.dtype == DType::kF8E4M3) AddStored(param, param.name + std::string(kScaleSuffix));
      return;
    }
    const ParamSpec& source = follows ? original : param;
    const DType dtype = LearnsByCounting(param.role) ? DType::kF32 : options_.weights;
    const Placement& placement = session_.placement();
    Push(param,
         SavedPart({param.name, dtype, param.shape}, placement.Kept(source), placement.IsFirst(source), session_.params()[source].value));
  }
  // Ranks take turns with what all of them read.
  void AddStored(const ParamSpec& param, const std::string& name) {
    SavedTensor tensor(name, loaded_.stored->Get(name).view());
    const auto ranks = static_cast<size_t>(session_.mesh().world().size());
    if (tensors_.size() % ranks != static_cast<size_t>(session_.mesh().world().rank())) tensor.part = {};
    Push(param, std::move(tensor));
  }

  void Push(const ParamSpec& param, SavedTensor tensor) {
    const DType dtype = tensor.info.dtype;
    const bool scale = tensor.info.name != param.name;
    has_fp8_ |= dtype == DType::kF8E4M3;
    has_f32_ |= dtype == DType::kF32 && !scale && param.facts().storage != HubStorage::kF32;
    if (param.facts().storage == HubStorage::kFp8 && dtype != DType::kF8E4M3 && !scale)
      unquantized_.insert(param.name.substr(0, param.name.rfind('.')));
    tensors_.push_back(std::move(tensor));
  }

  const TrainOptions& options_;
  const LoadedModel& loaded_;
  TrainSession& session_;
  std::vector<SavedTensor> tensors_;
  std::set<std::string> unquantized_;  // modules whose matrix an FP8 checkpoint would hold as FP8
  bool has_fp8_ = false, has_f32_ = false;
};

// The run's adapters as a PEFT folder has them; the weights that they stand beside are not saved.
class SavedAdapter {
 public:
  SavedAdapter(const TrainOptions& options, TrainSession& session) : rank_(options.lora.rank) {
    PeftSettings settings{options.lora.rank, options.lora.alpha, options.load_parameters_path.string(), {}};
    for (const ParamSpec& param : *session.params().spec) {
      if (!session.treatments().HasAdapter(param)) continue;
      const std::string& module = settings.modules.emplace_back(ModuleOf(param));
      const LowRank* adapter = session.params()[param].adapter.get();
      Add(session, PeftNameA(module), param, Factor::kA, adapter == nullptr ? ConstView() : adapter->a.view());
      Add(session, PeftNameB(module), param, Factor::kB, adapter == nullptr ? ConstView() : adapter->b.view());
    }
    config_ = PeftConfig(settings);
  }
  const Json& config() const { return config_; }
  const std::vector<SavedTensor>& tensors() const { return tensors_; }

 private:
  void Add(const TrainSession& session, std::string name, const ParamSpec& param, Factor factor, ConstView kept) {
    tensors_.push_back(PartOfFactor(session, {std::move(name), DType::kF32, ShapeOf(param, factor, rank_)}, param, factor, kept));
  }

  int64_t rank_;
  Json config_;
  std::vector<SavedTensor> tensors_;
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

// The optimizer's moments by slot, those of parameters that other ranks keep among them.
std::map<std::string, std::vector<SavedTensor>> SavedMoments(const TrainOptions& options, TrainSession& session) {
  std::map<std::string, std::vector<SavedTensor>> slots;
  std::map<std::string_view, const Optimizer::Moments*> kept;
  for (const auto& moments : session.optimizer().moments()) kept[moments.name] = &moments;
  if (options.optimizer.type == OptimizerType::kSgd) return slots;
  for (const ParamSpec& param : *session.params().spec) {
    const bool shared = param.is_copy() && SharesMtpHeads(options);
    if (shared || session.treatments().Of(param) != Treatment::kTrained) continue;
    const auto found = kept.find(param.name);
    if (found == kept.end() && session.placement().sharding().Holds(param)) continue;
    for (const auto& [slot, dtype] : {std::pair("mu", options.optimizer.mu_dtype), std::pair("nu", options.optimizer.nu_dtype)}) {
      if (slot == std::string_view("nu") && options.optimizer.type == OptimizerType::kMuon && IsOrthogonal(param)) continue;
      const View view = found == kept.end() ? View() : slot == std::string_view("mu") ? found->second->m : found->second->v;
      const Placement& placement = session.placement();
      slots[slot].push_back(
          SavedPart({param.name, dtype, param.shape}, placement.Updated(param), placement.IsFirstToUpdate(param), Tensor(nullptr, view)));
    }
  }
  for (const ParamSpec& param : *session.params().spec) {
    if (!session.treatments().HasAdapter(param)) continue;
    for (const Factor factor : kFactors) {
      const std::string name = NameOf(param, factor);
      const auto found = kept.find(name);
      const Shape whole = ShapeOf(param, factor, options.lora.rank);
      const View m = found == kept.end() ? View() : found->second->m, v = found == kept.end() ? View() : found->second->v;
      slots["mu"].push_back(PartOfFactor(session, {name, options.optimizer.mu_dtype, whole}, param, factor, m));
      slots["nu"].push_back(PartOfFactor(session, {name, options.optimizer.nu_dtype, whole}, param, factor, v));
    }
  }
  return slots;
}

// What a rank keeps of a tensor that moments belong to.
struct Place {
  Shape whole;
  Region part;
};

// By the moments' names.
std::map<std::string, Place, std::less<>> PlacesOfMoments(TrainSession& session) {
  std::map<std::string, Place, std::less<>> places;
  for (const ParamSpec& param : *session.params().spec) places[param.name] = {param.shape, session.placement().Updated(param)};
  for (const auto& [param, adapter] : ListAdapters(session.params())) {
    for (const Factor factor : kFactors) {
      const int64_t rank = adapter->a.dim(0);
      places[NameOf(*param, factor)] = {ShapeOf(*param, factor, rank), session.placement().sharding().Computed(*param, factor, rank)};
    }
  }
  return places;
}

void CopyInto(View to, ConstView from) {
  if (to.contiguous() && from.contiguous()) {
    std::memcpy(to.raw(), from.raw(), static_cast<size_t>(to.NumBytes()));
    return;
  }
  for (int64_t r = 0; r < to.dim(0); ++r) CopyInto(to.Rows(r, r + 1), from.Rows(r, r + 1));
}

}  // namespace

PendingSave PrepareSave(const TrainOptions& options, const LoadedModel& loaded, const std::vector<std::filesystem::path>& companions,
                        TrainSession& session, const Json& data_state, int64_t step) {
  PendingSave save{.folder = options.checkpoints_dir(), .keep = options.keep, .state = {.step = step}};
  save.state.values[kOptimizerSteps] = session.optimizer().step_count();
  save.state.values["data"] = data_state;
  if (session.optimizer().type() == OptimizerType::kMuon) save.state.values[kOptimizerName] = kMuonName;
  if (const SpikeGuard* spikes = session.optimizer().spikes())
    save.state.values[kSpikes] = {{"count", spikes->count()}, {"losses", spikes->losses()}, {"grad_norms", spikes->grad_norms()}};
  save.state.slots = SavedMoments(options, session);
  save.ranks.first = session.mesh().is_first();
  if (session.mesh().world().size() > 1)
    save.ranks.meet = [saving = session.mesh().world().InChannel(Channel::kSaving)] { saving.Barrier(); };
  if (options.lora.enabled) {
    const SavedAdapter adapter(options, session);
    save.config = adapter.config();
    save.tensors = adapter.tensors();
    save.options = {.overwrite = true, .adapter = true};
    if (loaded.stored) save.state.values[kBase] = BaseIdentity(*loaded.stored);
  } else {
    const SavedModel model(options, loaded, session);
    save.config = model.Config();
    save.tensors = model.tensors();
    save.options = {.max_shard_size = options.max_shard_size, .companions = companions, .overwrite = true};
  }
  return save;
}

void WriteSave(const PendingSave& save) {
  SaveTrainCheckpoint(save.folder, save.config, save.tensors, save.state, save.options, save.ranks);
  if (save.ranks.first) PruneCheckpoints(save.folder, save.keep);
}

int64_t CheckpointBytes(const TrainOptions& options, const LoadedModel& loaded, const std::vector<std::filesystem::path>& companions,
                        TrainSession& session) {
  const SavedModel model(options, loaded, session);
  int64_t bytes = 0;
  for (const SavedTensor& t : model.tensors()) bytes += t.info.NumBytes();
  for (const auto& [slot, tensors] : SavedMoments(options, session)) {
    for (const SavedTensor& t : tensors) bytes += t.info.NumBytes();
  }
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

void CheckSameBase(const ResumePoint& point, const Checkpoint& base) {
  const SavedTrainState state = SavedTrainState::Open(point.dir);
  const auto noted = state.values().find(kBase);
  if (noted == state.values().end() || *noted == BaseIdentity(base)) return;
  Throw(ErrorCode::kInput,
        "{}: its adapters were trained beside other weights than {} has: give the load_parameters_path that they began with, or another "
        "run_name",
        point.dir.string(), base.dir().string());
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
  const auto places = PlacesOfMoments(session);
  for (const auto& moments : session.optimizer().moments()) {
    const auto& [whole, part] = places.find(moments.name)->second;
    CopyInto(moments.m, PartOf(state.Get("mu", moments.name, moments.m.dtype(), whole).view(), part));
    if (moments.v.empty()) continue;
    CopyInto(moments.v, PartOf(state.Get("nu", moments.name, moments.v.dtype(), whole).view(), part));
  }
  const auto steps = state.values().find(kOptimizerSteps);
  if (steps == state.values().end() || !steps->is_number_integer()) {
    Throw(ErrorCode::kInput, "{}: no {} in it", state.file().string(), kOptimizerSteps);
  }
  session.optimizer().set_step_count(steps->get<int64_t>());
  RestoreSpikes(state, session.optimizer().spikes());
}

}  // namespace fathom

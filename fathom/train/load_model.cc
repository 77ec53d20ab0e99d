#include "fathom/train/load_model.h"

#include <algorithm>
#include <cstring>

#include "fathom/base/log.h"
#include "fathom/base/plan_scope.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/checkpoint/hub/validate.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/model/adapters.h"
#include "fathom/model/load.h"
#include "fathom/train/placement.h"

namespace fathom {
namespace {

bool UsesModules(const TrainOptions& options) { return options.mtp.modules > 0 || options.mtp.eval_module > 0; }

bool MayInit(const RunConfig& config, const std::string& part) {
  const auto& parts = config.Strings("init_missing");
  return std::ranges::find(parts, part) != parts.end();
}

// How many of the modules that config.json names are there; the first that is absent ends them.
int64_t HeldMtpModules(const Checkpoint& checkpoint) {
  const ModelConfig& c = checkpoint.config();
  int64_t held = 0;
  while (held < c.num_nextn_predict_layers &&
         checkpoint.Has(LayerPrefix(c.num_hidden_layers + held) + std::string(FactsOf(ParamRole::kMtpProjection).hub)))
    ++held;
  return held;
}

void CheckMtpModules(const RunConfig& config, const TrainOptions& options, int64_t held, const std::string& where) {
  const int64_t wanted = options.mtp.modules;
  if (wanted > held && !MayInit(config, "mtp")) {
    Throw(ErrorCode::kUsage, "mtp_num_layers={}: {} holds {} MTP modules; give init_missing=mtp to initialise the others", wanted, where,
          held);
  }
  if (wanted > held) spdlog::info("{} holds {} MTP modules: {} initialised, as init_missing=mtp says", where, held, wanted - held);
  if (options.mtp.eval_module > std::max(wanted, held)) {
    Throw(ErrorCode::kUsage, "mtp_eval_target_module={}: the model has {} MTP modules", options.mtp.eval_module, std::max(wanted, held));
  }
}

bool SameValues(const Checkpoint& checkpoint, const std::string& a, const std::string& b) {
  const Tensor x = checkpoint.Get(a), y = checkpoint.Get(b);
  return x.dtype() == y.dtype() && x.NumBytes() == y.NumBytes() &&
         std::memcmp(x.view().raw(), y.view().raw(), static_cast<size_t>(x.NumBytes())) == 0;
}

// The MTP modules' copies that equal what they copy, as the hub's do.
std::set<std::string, std::less<>> FindFollowers(const Checkpoint& checkpoint, const ModelSpec& spec) {
  std::set<std::string, std::less<>> followers;
  for (const ParamSpec& param : spec) {
    if (param.is_copy() && checkpoint.Has(param.name) && SameValues(checkpoint, param.name, spec.Original(param).name))
      followers.insert(param.name);
  }
  return followers;
}

// Where they don't, sharing changes what the module computes.
void WarnOfOwnCopies(const LoadedModel& model) {
  const ModelSpec& spec = *model.params.spec;
  for (const ParamSpec& param : spec) {
    if (!param.is_copy() || !model.stored->Has(param.name) || model.followers.contains(param.name)) continue;
    spdlog::warn("{}: {} differs from {}, which takes its place; mtp_own_head=true keeps it", model.stored->dir().string(), param.name,
                 spec.Original(param).name);
  }
}

// A module that has an embedding and a head of its own but none in the checkpoint starts from the main model's.
void CopyEmbeddingAndHead(DType dtype, const Sharding& sharding, DecoderParams& params) {
  for (const ParamSpec& param : *params.spec) {
    Weight& to = params[param];
    const Tensor& from = params[params.spec->Original(param)].value;
    if (!param.is_copy() || !to.value.empty() || from.empty() || !sharding.Holds(param)) continue;
    to.value = Tensor(dtype, from.shape());
    Cast(from.view(), to.value.mutable_view());
  }
}

bool HoldsIndexers(const Checkpoint& checkpoint) {
  return checkpoint.Has(LayerPrefix(0) + std::string(FactsOf(ParamRole::kIndexerKey).hub));
}

// The checkpoint's config, with an indexer if init_missing=indexer gives it one.
ModelConfig ConfigOf(const RunConfig& config, const Checkpoint& checkpoint) {
  ModelConfig model = checkpoint.config();
  const bool may_init = MayInit(config, "indexer");
  if (may_init && !model.has_indexer()) {
    AddIndexer(config, model);
    CheckModelConfig(model, checkpoint.dir().string());
  }
  const bool held = HoldsIndexers(checkpoint);
  if (model.has_indexer() && !held && !may_init) {
    Throw(ErrorCode::kInput, "{}: config.json names an indexer, but no tensor of one is there; give init_missing=indexer to initialise it",
          checkpoint.dir().string());
  }
  if (model.has_indexer() && !held)
    spdlog::info("{} holds no indexer: initialised, as init_missing=indexer says", checkpoint.dir().string());
  return model;
}

// Do the blocks of the FP8 recipe lie in the parts as they do in the whole?
bool KeepsBlocks(const Mesh& mesh, const ModelConfig& c) {
  constexpr int64_t kBlock = 128;
  const int64_t n = mesh.size(Axis::kTensor), heads = c.num_attention_heads;
  const auto keeps = [&](int64_t size) { return size % (n * kBlock) == 0; };
  return keeps(heads * c.qk_head_dim()) && keeps(heads * (c.qk_nope_head_dim + c.v_head_dim)) && keeps(heads * c.v_head_dim) &&
         keeps(c.moe_intermediate_size) && (c.first_k_dense_replace == 0 || keeps(c.intermediate_size));
}

// What the ranks of a run divide, and what is not offered.
void CheckTrainingMesh(const RunConfig& config, const TrainOptions& options, const ModelConfig& model) {
  const Mesh& mesh = options.mesh;
  CheckMesh(config, mesh, model, options.length);
  if (options.fp8_block && mesh.size(Axis::kTensor) > 1 && !KeepsBlocks(mesh, model)) {
    Throw(ErrorCode::kUsage, "{}={}: with quantization=fp8_block every rank's part of heads and widths has to be a multiple of 128; 1",
          MeshFlag(config, Axis::kTensor), mesh.size(Axis::kTensor));
  }
}

LoadedModel Fresh(const RunConfig& config, const TrainOptions& options) {
  CheckAdaptersHaveBase(options, {});
  LoadedModel model;
  model.config = ModelFromFlags(config);
  CheckTrainingMesh(config, options, model.config);
  const ModelSpec spec(model.config);
  const Placement placement(spec, model.config, options);
  model.params = InitParams(model.config, options.init_seed, options.weights, config.String("compat") == "maxtext",
                            [&](const ParamSpec& p) { return placement.Kept(p); });
  if (SharesMtpHeads(options)) ShareEmbeddingAndHead(model.params);
  return model;
}

// The checkpoint's tensors, each as the run will treat it.
void Load(const TrainOptions& options, LoadedModel& model) {
  const ModelSpec spec(model.config);
  const Placement placement(spec, model.config, options);
  const bool shares = SharesMtpHeads(options);
  const auto kept = [&](const ParamSpec& p) { return placement.Kept(p); };
  model.params = LoadParams(
      *model.stored, model.config, options.weights,
      [&](const ParamSpec& p) { return !placement.treatments().Stays(p) && !(shares && p.is_copy()); }, kept);
  model.bytes_read = StoredBytes(*model.stored, spec, kept);
  const bool planning = PlanScope::Active();  // a plan reads no values
  if (!planning) model.followers = FindFollowers(*model.stored, *model.params.spec);
  if (shares) {
    if (!planning) WarnOfOwnCopies(model);
    ShareEmbeddingAndHead(model.params);
  } else if (UsesModules(options)) {
    CopyEmbeddingAndHead(options.weights, placement.sharding(), model.params);
  }
}

LoadedModel Stored(const RunConfig& config, const TrainOptions& options, const std::filesystem::path& dir) {
  LoadedModel model;
  model.stored = Checkpoint::Open(dir, {.allow_missing_indexer = true, .ignore_config_keys = config.Strings("ignore_config_keys")});
  const Checkpoint& checkpoint = *model.stored;
  model.config = ConfigOf(config, checkpoint);
  const std::string where = (dir / "config.json").string();
  CheckGivenSizes(config, model.config, where);
  CheckModelName(config, model.config, where);
  CheckTrainingMesh(config, options, model.config);
  const int64_t held = HeldMtpModules(checkpoint);
  CheckMtpModules(config, options, held, dir.string());
  model.config.num_nextn_predict_layers = std::max(held, options.mtp.modules);
  Load(options, model);
  return model;
}

// The same of the checkpoint that the hub has of the flags' model, for plans: mapped, with no values.
LoadedModel OnHub(const RunConfig& config, const TrainOptions& options) {
  LoadedModel model{.config = HubModel(config)};
  const int64_t held = model.config.num_nextn_predict_layers;
  const bool adds_indexer = !model.config.has_indexer() && MayInit(config, "indexer");
  if (adds_indexer) AddIndexer(config, model.config);
  CheckTrainingMesh(config, options, model.config);
  CheckMtpModules(config, options, held, "the hub's checkpoint");
  model.config.num_nextn_predict_layers = std::max(held, options.mtp.modules);
  const ModelSpec spec(model.config);
  const Placement placement(spec, model.config, options);
  const bool shares = SharesMtpHeads(options);
  model.params = MapHubParams(model.config, [&](const ParamSpec& p) {
    const bool absent = p.mtp >= held || (adds_indexer && p.is_indexer()) || (shares && p.is_copy());
    return absent ? Region() : placement.Kept(p);
  });
  if (shares) ShareEmbeddingAndHead(model.params);
  return model;
}

// Those of the folder, which must be the ones that the flags choose, or fresh ones.
void AttachAdapters(const TrainOptions& options, const std::filesystem::path& dir, const Sharding& sharding, DecoderParams& params) {
  const Treatments treatments(*params.spec, options);
  std::vector<const ParamSpec*> chosen;
  for (const ParamSpec& param : *params.spec) {
    if (treatments.HasAdapter(param)) chosen.push_back(&param);
  }
  if (dir.empty()) return AttachFresh(chosen, options.lora.rank, options.lora.alpha, options.init_seed, sharding, params);
  PeftAdapter adapter = ReadPeftAdapter(dir, *params.spec);
  const auto fail = [&](const std::string& what) { Throw(ErrorCode::kInput, "{}: {}", dir.string(), what); };
  for (const ParamSpec* param : chosen) {
    if (!adapter.modules.contains(ModuleOf(*param)))
      fail(fmt::format("no adapter for {}, which lora.lora_module_path chooses", ModuleOf(*param)));
  }
  if (adapter.modules.size() != chosen.size())
    fail(fmt::format("adapters for {} modules; lora.lora_module_path chooses {} of them", adapter.modules.size(), chosen.size()));
  const LowRank& first = adapter.modules.begin()->second;
  const double factor = options.lora.alpha / static_cast<double>(options.lora.rank);
  if (first.a.dim(0) != options.lora.rank || first.factor != factor) {
    fail(fmt::format("rank {} and factor {} (alpha / rank); lora.lora_rank={} lora.lora_alpha={} say otherwise", first.a.dim(0),
                     first.factor, options.lora.rank, options.lora.alpha));
  }
  Attach(std::move(adapter), sharding, params);
}

}  // namespace

void CheckAdaptersHaveBase(const TrainOptions& options, const std::filesystem::path& dir) {
  if (options.lora.enabled && dir.empty())
    Throw(ErrorCode::kUsage, "lora.enable_lora=true needs load_parameters_path=: an adapter stands beside trained weights");
}

bool HasFreshIndexers(const LoadedModel& model) { return model.config.has_indexer() && !(model.stored && HoldsIndexers(*model.stored)); }

LoadedModel LoadModel(const RunConfig& config, const TrainOptions& options, const std::filesystem::path& dir,
                      const std::filesystem::path& adapter) {
  const bool on_hub = dir.empty() && options.lora.enabled && PlanScope::Active();
  if (dir.empty() && !on_hub) return Fresh(config, options);
  LoadedModel model = on_hub ? OnHub(config, options) : Stored(config, options, dir);
  const bool maxtext = config.String("compat") == "maxtext";
  const Placement placement(*model.params.spec, model.config, options);
  const auto init = [&](bool maxtext_init, ParamFilter wanted) {
    InitMissing(model.config, options.init_seed, options.weights, maxtext_init, wanted, model.params,
                [&](const ParamSpec& p) { return placement.Kept(p); });
  };
  if (UsesModules(options)) init(maxtext, [](const ParamSpec& p) { return p.is_mtp(); });
  if (model.config.has_indexer() && MayInit(config, "indexer")) init(false, [](const ParamSpec& p) { return p.is_indexer(); });
  if (options.lora.enabled) AttachAdapters(options, adapter.empty() ? options.lora.restore : adapter, placement.sharding(), model.params);
  return model;
}

}  // namespace fathom

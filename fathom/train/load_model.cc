#include "fathom/train/load_model.h"

#include <algorithm>
#include <cstring>

#include "fathom/base/log.h"
#include "fathom/checkpoint/hub/hf_names.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/model/load.h"

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
         checkpoint.Has(DecoderParams::LayerPrefix(static_cast<size_t>(c.num_hidden_layers + held)) + "eh_proj.weight"))
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

// The hub's copies equal the main tensors; where they don't, sharing changes what the module computes.
void WarnOfOwnCopies(const Checkpoint& checkpoint, int64_t held) {
  for (int64_t k = 0; k < held; ++k) {
    const std::string prefix = DecoderParams::LayerPrefix(static_cast<size_t>(checkpoint.config().num_hidden_layers + k));
    for (const auto& [copy, main] :
         {std::pair{prefix + "embed_tokens.weight", "model.embed_tokens.weight"}, {prefix + "shared_head.head.weight", "lm_head.weight"}}) {
      if (checkpoint.Has(copy) && !SameValues(checkpoint, copy, main)) {
        spdlog::warn("{}: {} differs from {}, which takes its place; mtp_own_head=true keeps it", checkpoint.dir().string(), copy, main);
      }
    }
  }
}

// A module that has an embedding and a head of its own but none in the checkpoint starts from the main model's.
void CopyEmbeddingAndHead(DecoderParams& params) {
  const auto copy = [](const Weight& from, Weight& to) {
    if (!to.value.empty()) return;
    to.value = Tensor(from.value.dtype(), from.value.shape());
    std::memcpy(to.value.mutable_view().raw(), from.value.view().raw(), static_cast<size_t>(from.value.NumBytes()));
  };
  for (MtpParams& m : params.mtp) {
    copy(params.embed_tokens, m.embed_tokens);
    copy(params.lm_head, m.shared_head_head);
  }
}

// The checkpoint's config, with an indexer if init_missing=indexer gives it one.
ModelConfig ConfigOf(const RunConfig& config, const Checkpoint& checkpoint) {
  ModelConfig model = checkpoint.config();
  const bool may_init = MayInit(config, "indexer");
  if (may_init && !model.has_indexer()) {
    AddIndexer(config, model);
    CheckModelConfig(model, checkpoint.dir().string());
  }
  const bool held = checkpoint.Has(DecoderParams::LayerPrefix(0) + "self_attn.indexer.wk.weight");
  if (model.has_indexer() && !held && !may_init) {
    Throw(ErrorCode::kInput, "{}: config.json names an indexer, but no tensor of one is there; give init_missing=indexer to initialise it",
          checkpoint.dir().string());
  }
  if (model.has_indexer() && !held)
    spdlog::info("{} holds no indexer: initialised, as init_missing=indexer says", checkpoint.dir().string());
  return model;
}

LoadedModel Fresh(const RunConfig& config, const TrainOptions& options) {
  LoadedModel model{ModelFromFlags(config), {}};
  model.params = InitParams(model.config, options.init_seed, options.weights, config.String("compat") == "maxtext");
  if (SharesMtpHeads(options)) ShareEmbeddingAndHead(model.params);
  return model;
}

}  // namespace

bool SharesMtpHeads(const TrainOptions& options) { return UsesModules(options) && !options.mtp_own_head; }

LoadedModel LoadModel(const RunConfig& config, const TrainOptions& options, const std::filesystem::path& dir) {
  if (dir.empty()) return Fresh(config, options);
  const Checkpoint checkpoint = Checkpoint::Open(dir);
  LoadedModel model{ConfigOf(config, checkpoint), {}};
  const std::string where = (dir / "config.json").string();
  CheckGivenSizes(config, model.config, where);
  CheckModelName(config, model.config, where);
  ValidateAgainstConfig(checkpoint, {.allow_missing_mtp = true, .allow_missing_indexer = true});
  const int64_t held = HeldMtpModules(checkpoint);
  CheckMtpModules(config, options, held, dir.string());
  const bool shares = SharesMtpHeads(options);
  if (shares) WarnOfOwnCopies(checkpoint, held);
  model.params = CopyParams(checkpoint, options.weights, !shares);
  model.config.num_nextn_predict_layers = std::max(held, options.mtp.modules);
  model.params.mtp.resize(static_cast<size_t>(model.config.num_nextn_predict_layers));
  if (shares) ShareEmbeddingAndHead(model.params);
  if (UsesModules(options)) {
    CopyEmbeddingAndHead(model.params);
    InitMissingMtp(model.config, options.init_seed, options.weights, config.String("compat") == "maxtext", model.params);
  }
  if (model.config.has_indexer() && MayInit(config, "indexer"))
    InitMissingIndexers(model.config, options.init_seed, options.weights, false, model.params);
  return model;
}

}  // namespace fathom

#include "fathom/train/run_start.h"

#include "fathom/base/log.h"
#include "fathom/base/progress.h"
#include "fathom/base/threads.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/config/profiler.h"
#include "fathom/machine/free_memory.h"
#include "fathom/train/memory.h"

namespace fathom {
namespace {

bool AnyRank(const Mesh& mesh, bool mine) {
  double any = mine;
  mesh.world().AllMax(std::span(&any, 1));
  return any != 0;
}

}  // namespace

const RunConfig& CheckedFlags(const RunConfig& config, const ModelConfig& model) {
  CheckTrainingFlags(config, model);
  return config;
}

void WarnOfIdleIndexers(const LoadedModel& loaded, const TrainOptions& options) {
  if (!HasFreshIndexers(loaded) || options.indexer.factor > 0) return;
  spdlog::warn(
      "the indexers are fresh and this run does not train them: indexer_loss_scaling_factor=0.01 does (with "
      "indexer_sparse_training=true beside the rest)");
}

std::filesystem::path RunFolder(const TrainOptions& options) {
  std::error_code failed;
  std::filesystem::create_directories(options.run_dir / "metrics", failed);
  if (failed) Throw(ErrorCode::kResource, "{}: cannot create: {}", (options.run_dir / "metrics").string(), failed.message());
  return options.run_dir;
}

LoadedModel LoadStart(const RunConfig& config, const TrainOptions& options, const std::optional<ResumePoint>& resume) {
  CheckAdaptersHaveBase(options, options.load_parameters_path);
  const std::filesystem::path resumed = resume ? resume->dir : "";
  if (options.lora.enabled) {
    LoadedModel model = LoadModel(config, options, options.load_parameters_path, resumed);
    if (resume && model.stored) CheckSameBase(*resume, *model.stored);
    return model;
  }
  return LoadModel(config, options, resume ? resumed : options.load_parameters_path);
}

TraceWindowOptions TraceOf(const RunConfig& config, const TrainOptions& options, int64_t first_step) {
  if (!WantsTrace(config)) return {};
  return {.folder = options.run_dir / "trace",
          .first = first_step + config.Int("skip_first_n_steps_for_profiler"),
          .count = config.Int("profiler_steps"),
          .rank = options.mesh.world().rank()};
}

ModelConfig PlannedModel(const RunConfig& config, TrainOptions& options, const std::optional<ResumePoint>& resume) {
  TrainPlan plan;
  {
    const QuietLog quiet;
    plan = PlanTraining(options, NumThreads(), [&] { return LoadStart(config, options, resume); });
  }
  if (AnyRank(options.mesh, DropStateCopy(plan.memory, FreeMemoryBytes()))) {
    spdlog::info("no memory is free for a copy of weights and moments: steps will wait while checkpoints are written");
    options.save_beside = false;
  }
  LogMemoryTable(plan.memory);
  if (plan.mapped > 0) spdlog::info("  {:<12} {:>10}", "mapped", FormatBytes(static_cast<double>(plan.mapped)));
  CheckFits(plan.memory, FreeMemoryBytes(), options);
  return plan.config;
}

}  // namespace fathom

#include "apps/plan_mesh.h"

#include <set>

#include "apps/plan_network.h"
#include "apps/plan_search.h"
#include "fathom/base/threads.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/train/flops.h"

namespace fathom {
namespace {

struct MeshPlan {
  TrainPlan first, largest;  // of rank 0, and of the rank that takes the most memory
  int largest_rank = 0;
  double arithmetic = 0, network = 0;  // seconds
  double tokens = 0;                   // of a step
  double Seconds() const { return arithmetic + network; }
  int64_t RankBytes() const { return TotalBytes(largest.memory) + ProgramBytes(Program::kTraining, false); }
};

// Ranks of the first, the second and the last stage: the others are as the second is.
std::set<int> RanksOfStages(const MeshSizes& sizes, int ranks) {
  const AxisSize& stage = sizes[static_cast<size_t>(Axis::kStage)];
  int node = 1;  // ranks of a node; stages are the outermost axis there, and among nodes
  for (const AxisSize& size : sizes) node *= static_cast<int>(size.ici);
  std::vector<int> list;
  for (int d = 0; d < stage.dcn; ++d) {
    for (int i = 0; i < stage.ici; ++i)
      list.push_back(d * (ranks / static_cast<int>(stage.dcn)) + i * (node / static_cast<int>(stage.ici)));
  }
  return {list.front(), list[std::min<size_t>(1, list.size() - 1)], list.back()};
}

// Stages run m micro-batches in m + n - 1 slots, of which each takes as long as the largest stage.
double StageFactor(const TrainOptions& options, const ModelConfig& config) {
  const auto n = static_cast<double>(options.mesh.size(Axis::kStage)), layers = static_cast<double>(config.num_hidden_layers);
  const auto m = static_cast<double>(MicroBatchCount(options.mesh, options.rows));
  return (m + n - 1) / m * (std::ceil(layers / n) * n / layers);
}

// Those that are looked at: sums after every product and every attention are for ranks of one host or of a few, and sequences are
// shared where they are long.
bool MayTrain(const RunConfig& flags, const MeshSizes& sizes) {
  constexpr int64_t kFew = 8, kLong = 8192;
  const auto of = [&](Axis axis) { return sizes[static_cast<size_t>(axis)].all(); };
  return of(Axis::kTensor) <= std::max(kFew, flags.Int("ranks_per_host")) && of(Axis::kStage) <= 2 * kFew &&
         (of(Axis::kContext) == 1 || (of(Axis::kContext) <= kFew && flags.Int("max_target_length") >= kLong));
}

MeshPlan PlanOn(const RunConfig& flags, Machine& machine, int ranks, const MeshSizes& sizes) {
  MeshPlan plan;
  const int64_t host_ranks = flags.Int("ranks_per_host");
  const Network network = NetworkOf(flags, machine);
  for (const int rank : RanksOfStages(sizes, ranks)) {
    const TrainOptions options = ReadTrainOptions(flags, Mesh(Comm::Planned(rank, ranks, static_cast<int>(host_ranks)), sizes));
    TrainPlan of_rank = PlanOf(flags, options);
    plan.network = std::max(plan.network, network.Seconds(of_rank.traffic));
    if (rank == 0) {
      plan.tokens = static_cast<double>(options.rows * options.length * options.accumulation * options.mesh.row_ranks());
      plan.arithmetic = RunFlopsPerToken(of_rank.config, options) * plan.tokens * 1e-9 / machine.Gflops(options.compute) *
                        static_cast<double>(host_ranks) / ranks * StageFactor(options, of_rank.config);
      plan.first = of_rank;
    }
    if (plan.largest.memory.empty() || TotalBytes(of_rank.memory) > TotalBytes(plan.largest.memory)) {
      plan.largest = std::move(of_rank);
      plan.largest_rank = rank;
    }
  }
  return plan;
}

void AddTimes(Report& report, const RunConfig& flags, const MeshPlan& plan) {
  report.Section("time");
  report.Seconds("arithmetic at least", plan.arithmetic, fmt::format("{:.0f} tokens of all ranks", plan.tokens));
  AddNetworkTime(report, "network", flags, plan.network, "; what runs beside arithmetic is counted as well");
  report.Seconds("step at least", plan.Seconds(), fmt::format("{:.0f} tokens/s", plan.tokens / plan.Seconds()));
}

}  // namespace

TrainPlan PlanOf(const RunConfig& flags, const TrainOptions& options) {
  const bool anew = options.lora.enabled || options.load_full_state_path.empty();
  const std::filesystem::path& start = anew ? options.load_parameters_path : options.load_full_state_path;
  TrainPlan plan = PlanTraining(options, NumThreads(), [&] { return LoadModel(flags, options, start); });
  CheckTrainingFlags(flags, plan.config);
  return plan;
}

void AddMemory(Report& report, const Machine& machine, const TrainPlan& plan, bool alone) {
  report.Section("memory");
  for (const MemoryRow& row : plan.memory) report.Bytes(row.what, row.bytes);
  AddProgram(report, Program::kTraining, alone);
  AddMemoryTotal(report, machine, TotalBytes(plan.memory) + ProgramBytes(Program::kTraining, alone));
  if (plan.mapped > 0)
    report.Bytes("mapped", plan.mapped, "of the checkpoint's files, read where they lie: not trained, and not counted above");
}

void PlanMesh(const RunConfig& flags, Machine& machine, Report& report) {
  const auto ranks = static_cast<int>(PlannedRanks(flags));
  const MeshSizes sizes = ReadMesh(flags, ranks);
  const MeshPlan plan = PlanOn(flags, machine, ranks, sizes);
  AddModel(report, plan.first.config);
  AddMesh(report, flags, sizes, plan.largest_rank);
  AddMemory(report, machine, plan.largest, false);
  AddHostMemory(report, flags, machine, plan.RankBytes());
  AddNetwork(report, "network, sent in a step by the first rank", sizes, plan.first.traffic);
  AddTimes(report, flags, plan);
}

void SearchTrainingMesh(const RunConfig& flags, Machine& machine, Report& report) {
  const auto ranks = static_cast<int>(PlannedRanks(flags));
  const auto cost = [&](const MeshSizes& sizes) {
    const MeshPlan plan = PlanOn(flags, machine, ranks, sizes);
    return MeshCost{sizes, plan.first.config, plan.RankBytes(), plan.arithmetic, plan.network, plan.first.traffic};
  };
  SearchMesh(flags, machine, report, {"step", "arithmetic", [&](const MeshSizes& sizes) { return MayTrain(flags, sizes); }, cost});
}

}  // namespace fathom

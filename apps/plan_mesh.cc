#include "apps/plan_mesh.h"

#include <fmt/ranges.h>

#include <map>
#include <optional>
#include <set>

#include "fathom/base/log.h"
#include "fathom/base/threads.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/config/model_sizes.h"
#include "fathom/train/flops.h"

namespace fathom {
namespace {

std::string Shown(int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); }
std::string ShownTime(double seconds) { return seconds < 60 ? fmt::format("{:.3g} s", seconds) : FormatSeconds(seconds); }

// The cost of a message and of a byte between hosts; bytes within a host are copied through its memory.
struct Network {
  double gb_s, us, memory_gb_s;
  int64_t host_ranks;  // they share the host's link
  double Seconds(const Traffic& t) const {
    const auto far = static_cast<double>(t.far_bytes), near = static_cast<double>(t.bytes_sent - t.far_bytes);
    return static_cast<double>(t.far_messages) * us * 1e-6 +
           static_cast<double>(host_ranks) * (far / gb_s + (near > 0 ? 2 * near / memory_gb_s : 0)) * 1e-9;
  }
};

Network NetworkOf(const RunConfig& flags, Machine& machine) {
  const int64_t host_ranks = flags.Int("ranks_per_host");
  return {flags.Float("net_gb_s"), flags.Float("net_us"), host_ranks > 1 ? machine.MemoryGbS() : 1, host_ranks};
}

struct MeshPlan {
  MeshSizes sizes;
  TrainPlan first, largest;  // of rank 0, and of the rank that takes the most memory
  int largest_rank = 0;
  double arithmetic = 0, network = 0;  // seconds
  double tokens = 0;                   // of a step
  double Seconds() const { return arithmetic + network; }
  int64_t RankBytes() const { return TotalBytes(largest.memory); }
};

std::string NameOf(const MeshSizes& sizes) {
  std::string name;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i].all() > 1) name += fmt::format("{}{} {}", name.empty() ? "" : ", ", AxisName(kAxes[i]), sizes[i].all());
  }
  return name.empty() ? "one rank" : name;
}

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

MeshPlan PlanOn(const RunConfig& flags, Machine& machine, int ranks, const MeshSizes& sizes) {
  MeshPlan plan{.sizes = sizes};
  const int64_t host_ranks = flags.Int("ranks_per_host");
  const Network network = NetworkOf(flags, machine);
  for (const int rank : RanksOfStages(sizes, ranks)) {
    const TrainOptions options = ReadTrainOptions(flags, Mesh(Comm::Planned(rank, ranks, static_cast<int>(host_ranks)), sizes));
    TrainPlan of_rank = PlanOf(flags, options);
    double seconds = 0;
    for (const Traffic& traffic : of_rank.traffic) seconds += network.Seconds(traffic);
    plan.network = std::max(plan.network, seconds);
    if (rank == 0) {
      plan.tokens = static_cast<double>(options.rows * options.length * options.accumulation * options.mesh.row_ranks());
      plan.arithmetic = RunFlopsPerToken(of_rank.config, options) * plan.tokens * 1e-9 / machine.Gflops(options.compute) *
                        static_cast<double>(host_ranks) / ranks * StageFactor(options, of_rank.config);
      plan.first = of_rank;
    }
    if (plan.largest.memory.empty() || TotalBytes(of_rank.memory) > plan.RankBytes()) {
      plan.largest = std::move(of_rank);
      plan.largest_rank = rank;
    }
  }
  return plan;
}

void AddNetwork(Report& report, const MeshPlan& plan) {
  report.Section("network, sent in a step by the first rank");
  for (const Axis axis : kAxes) {
    const auto i = static_cast<size_t>(axis);
    const Traffic& t = plan.first.traffic[i];
    if (plan.sizes[i].all() > 1)
      report.Bytes(AxisName(axis), t.bytes_sent, fmt::format("in {} messages; {} to other hosts", t.messages, Shown(t.far_bytes)));
  }
}

void AddTimes(Report& report, const RunConfig& flags, const MeshPlan& plan) {
  report.Section("time");
  report.Seconds("arithmetic at least", plan.arithmetic, fmt::format("{:.0f} tokens of all ranks", plan.tokens));
  report.Seconds("network", plan.network,
                 fmt::format("at {} GB/s a host and {} us a message; what runs beside arithmetic is counted as well",
                             flags.Float("net_gb_s"), flags.Float("net_us")));
  report.Seconds("step at least", plan.Seconds(), fmt::format("{:.0f} tokens/s", plan.tokens / plan.Seconds()));
}

}  // namespace

int64_t PlannedRanks(const RunConfig& flags) {
  const int64_t hosts = flags.Int("hosts"), each = flags.Int("ranks_per_host"), ranks = hosts > 0 ? hosts * each : AskedRanks(flags);
  if (ranks % each != 0 && ranks > 1) Throw(ErrorCode::kUsage, "ranks_per_host={}: has to divide the mesh's {} ranks", each, ranks);
  return ranks;
}

TrainPlan PlanOf(const RunConfig& flags, const TrainOptions& options) {
  const bool anew = options.lora.enabled || options.load_full_state_path.empty();
  const std::filesystem::path& start = anew ? options.load_parameters_path : options.load_full_state_path;
  TrainPlan plan = PlanTraining(options, NumThreads(), [&] { return LoadModel(flags, options, start); });
  CheckTrainingFlags(flags, plan.config);
  return plan;
}

void AddModel(Report& report, const ModelConfig& config) {
  const ParameterCounts counts = CountParameters(config);
  report.Section("parameters");
  report.Count("total", counts.total);
  report.Count("active", counts.active);
  if (counts.mtp > 0) report.Count("mtp", counts.mtp);
}

void AddMemoryTotal(Report& report, const Machine& machine, int64_t total) {
  const int64_t here = machine.MemoryBytes();
  report.Bytes("in all", total, total <= here ? "fits this machine" : fmt::format("more than this machine's {}", Shown(here)));
}

void AddMemory(Report& report, const Machine& machine, const TrainPlan& plan) {
  report.Section("memory");
  for (const MemoryRow& row : plan.memory) report.Bytes(row.what, row.bytes);
  AddMemoryTotal(report, machine, TotalBytes(plan.memory));
  if (plan.mapped > 0)
    report.Bytes("mapped", plan.mapped, "of the checkpoint's files, read where they lie: not trained, and not counted above");
}

void PlanMesh(const RunConfig& flags, Machine& machine, Report& report) {
  const auto ranks = static_cast<int>(PlannedRanks(flags));
  const MeshPlan plan = PlanOn(flags, machine, ranks, ReadMesh(flags, ranks));
  const int64_t host_ranks = flags.Int("ranks_per_host");
  AddModel(report, plan.first.config);
  report.Section("mesh");
  report.Count("ranks", ranks, fmt::format("{}; {} on each of {} hosts", NameOf(plan.sizes), host_ranks, ranks / host_ranks));
  report.Count("largest rank", plan.largest_rank, "whose memory this is:");
  AddMemory(report, machine, plan.largest);
  if (host_ranks > 1) {
    const int64_t total = host_ranks * plan.RankBytes(), here = machine.MemoryBytes();
    report.Bytes("of a host", total, total <= here ? "fits" : "more than its " + Shown(here));
  }
  AddNetwork(report, plan);
  AddTimes(report, flags, plan);
}

namespace {

// Every way to write `ranks` as a product over the axes from `axis` on.
void Factor(int64_t ranks, size_t axis, MeshSizes& sizes, std::vector<MeshSizes>& list) {
  if (axis + 1 == sizes.size()) {
    sizes[axis].ici = ranks;
    list.push_back(sizes);
    return;
  }
  for (int64_t n = 1; n <= ranks; ++n) {
    if (ranks % n != 0) continue;
    sizes[axis].ici = n;
    Factor(ranks / n, axis + 1, sizes, list);
  }
}

// Those that are looked at: sums after every product and every attention are for ranks of one host or of a few, and sequences are
// shared where they are long.
bool IsCandidate(const RunConfig& flags, const MeshSizes& sizes) {
  constexpr int64_t kFew = 8, kLong = 8192;
  const auto of = [&](Axis axis) { return sizes[static_cast<size_t>(axis)].all(); };
  return of(Axis::kTensor) <= std::max(kFew, flags.Int("ranks_per_host")) && of(Axis::kStage) <= 2 * kFew &&
         (of(Axis::kContext) == 1 || (of(Axis::kContext) <= kFew && flags.Int("max_target_length") >= kLong));
}

struct Search {
  std::vector<MeshPlan> fitting, large;    // by time of a step; by memory
  std::map<std::string, int64_t> refused;  // why, and how many
};

Search TryMeshes(const RunConfig& flags, Machine& machine, int ranks) {
  std::vector<MeshSizes> all;
  MeshSizes sizes;
  Factor(ranks, 0, sizes, all);
  std::erase_if(all, [&](const MeshSizes& mesh) { return !IsCandidate(flags, mesh); });
  Search search;
  Progress progress("planning", "meshes", static_cast<double>(all.size()));
  for (size_t i = 0; i < all.size(); ++i) {
    progress.Update(static_cast<double>(i));
    try {
      const QuietLog quiet;
      MeshPlan plan = PlanOn(flags, machine, ranks, all[i]);
      const bool fits = plan.RankBytes() * flags.Int("ranks_per_host") <= machine.MemoryBytes();
      (fits ? search.fitting : search.large).push_back(std::move(plan));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUsage) throw;
      ++search.refused[error.what()];
    }
  }
  progress.Finish();
  std::ranges::sort(search.fitting, {}, &MeshPlan::Seconds);
  std::ranges::sort(search.large, {}, &MeshPlan::RankBytes);
  return search;
}

Json JsonOf(const MeshPlan& plan) {
  Json json = {{"memory_bytes", plan.RankBytes()},
               {"arithmetic_seconds", plan.arithmetic},
               {"network_seconds", plan.network},
               {"step_seconds", plan.Seconds()}};
  for (size_t i = 0; i < plan.sizes.size(); ++i) {
    json["mesh"][AxisName(kAxes[i])] = plan.sizes[i].all();
    if (plan.sizes[i].all() > 1) json["bytes_sent"][AxisName(kAxes[i])] = plan.first.traffic[i].bytes_sent;
  }
  return json;
}

void AddTable(Report& report, const std::string& title, const std::string& key, const std::vector<MeshPlan>& plans, size_t most) {
  if (plans.empty()) return;
  report.Section(title);
  Json list = Json::array();
  std::string text = fmt::format("  {:<36} {:>12} {:>12} {:>12} {:>12}", "mesh", "a rank", "arithmetic", "network", "step");
  for (size_t i = 0; i < plans.size(); ++i) {
    list.push_back(JsonOf(plans[i]));
    if (i < most)
      text += fmt::format("\n  {:<36} {:>12} {:>12} {:>12} {:>12}", NameOf(plans[i].sizes), Shown(plans[i].RankBytes()),
                          ShownTime(plans[i].arithmetic), ShownTime(plans[i].network), ShownTime(plans[i].Seconds()));
  }
  if (plans.size() > most) text += fmt::format("\n  and {} more (json= has them)", plans.size() - most);
  report.Line(text, key, std::move(list));
}

// What the best mesh has over its neighbours.
std::string Why(const Search& search, const Machine& machine) {
  const MeshPlan& best = search.fitting[0];
  std::string why =
      fmt::format("{}: the shortest step of {} meshes that fit into {}: {}, of which the network takes {}", NameOf(best.sizes),
                  search.fitting.size(), Shown(machine.MemoryBytes()), ShownTime(best.Seconds()), ShownTime(best.network));
  if (search.fitting.size() > 1)
    why += fmt::format("; {} takes {}", NameOf(search.fitting[1].sizes), ShownTime(search.fitting[1].Seconds()));
  const auto faster = std::ranges::min_element(search.large, {}, &MeshPlan::Seconds);
  if (faster != search.large.end() && faster->Seconds() < best.Seconds())
    why +=
        fmt::format("; {} would take {}, and {} a rank", NameOf(faster->sizes), ShownTime(faster->Seconds()), Shown(faster->RankBytes()));
  return why;
}

std::string FlagsOf(const MeshSizes& sizes) {
  std::vector<std::string> flags;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i].all() > 1 || kAxes[i] == Axis::kFsdp)
      flags.push_back(fmt::format("ici_{}_parallelism={}", kAxes[i] == Axis::kStage ? "pipeline" : AxisName(kAxes[i]), sizes[i].all()));
  }
  return fmt::format("{}", fmt::join(flags, " "));
}

}  // namespace

void SearchMesh(const RunConfig& flags, Machine& machine, Report& report) {
  constexpr size_t kShown = 12;
  if (flags.Int("hosts") < 1) Throw(ErrorCode::kUsage, "search=true needs hosts= (and ranks_per_host=): how many ranks there are");
  const auto ranks = static_cast<int>(PlannedRanks(flags));
  const Search search = TryMeshes(flags, machine, ranks);
  if (search.fitting.empty() && search.large.empty())
    Throw(ErrorCode::kUsage, "hosts={}: no mesh of {} ranks can be: {}", flags.Int("hosts"), ranks, search.refused.begin()->first);
  AddModel(report, (search.fitting.empty() ? search.large : search.fitting)[0].first.config);
  AddTable(report, "meshes that fit", "fit", search.fitting, kShown);
  AddTable(report, fmt::format("more than a host's {}", Shown(machine.MemoryBytes())), "too_large", search.large, kShown);
  report.Section("best");
  if (search.fitting.empty()) {
    report.Line(fmt::format("  none of {} meshes fits; {} takes the least: {} a rank", search.large.size(), NameOf(search.large[0].sizes),
                            Shown(search.large[0].RankBytes())),
                "mesh", Json());
    return;
  }
  report.Line("  " + Why(search, machine), "why", Why(search, machine));
  report.Line("  " + FlagsOf(search.fitting[0].sizes), "flags", FlagsOf(search.fitting[0].sizes));
  report.Line("", "mesh", JsonOf(search.fitting[0])["mesh"]);
}

}  // namespace fathom

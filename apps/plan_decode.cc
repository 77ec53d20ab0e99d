#include "apps/plan_decode.h"

#include <map>
#include <optional>

#include "apps/decode.h"
#include "apps/plan_search.h"
#include "apps/prompt_ids.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/plan_scope.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/infer/decode_plan.h"
#include "fathom/infer/mapped_model.h"
#include "fathom/model/layer_flags.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {

// A checkpoint, or what the hub has of the flags' model.
struct Model {
  ModelConfig config;
  std::optional<Checkpoint> stored;
};

Model OpenModel(const RunConfig& flags) {
  const std::filesystem::path dir = flags.String("load_parameters_path");
  if (dir.empty()) return {HubModel(flags), std::nullopt};
  Checkpoint checkpoint = OpenCheckpoint(flags, dir);
  return {checkpoint.config(), std::move(checkpoint)};
}

DecodeShape ShapeOf(const RunConfig& flags) {
  const std::string& ids = flags.String("prompt_ids");
  const int64_t longest = std::max<int64_t>(1, flags.Int("max_prefill_predict_length")), answer = flags.Int("max_new_tokens");
  const int64_t prompt = ids.empty() ? longest : std::ssize(ParsePromptIds(ids));
  const int64_t capacity = answer >= 0 ? prompt + answer : flags.Int("max_target_length");
  const int64_t drafts = flags.String("speculative") == "mtp" ? flags.Int("draft_tokens") : 0;
  return {flags.Int("batch_size"), std::min(prompt, std::max<int64_t>(1, capacity - 1)), capacity, drafts};
}

// Of the first rank: of those that share the experts it alone computes the shared ones, else all are alike.
struct DecodeCost {
  DecodePlan plan;
  std::map<DType, int64_t> stored;               // bytes of its weights
  double disk_bytes = 0;                         // read for a step from where there is no room for them
  double reading = 0, disk = 0, arithmetic = 0;  // seconds of a step
  double network = 0, prompts = 0, drafted = 0;  // of a step; of all prompts, and of a step with drafts (0: unknown)
  double local() const { return std::max({reading, disk, arithmetic}); }
  int64_t RankBytes(bool alone) const { return plan.TotalBytes() + ProgramBytes(Program::kDecoding, alone); }
};

std::map<DType, int64_t> StoredBytes(const DecoderParams& params) {
  std::map<DType, int64_t> bytes;
  for (const ParamSpec& param : *params.spec) {
    for (const Tensor* tensor : {&params[param].value, &params[param].scale_inv}) {
      if (!tensor->empty()) bytes[tensor->dtype()] += tensor->NumBytes();
    }
  }
  return bytes;
}

// What a step reads of weights that memory has no room for, if what every step reads stays there first, then as many experts as there is
// room for.
double DiskBytes(const Machine& machine, const DecodePlan& plan, int64_t host_ranks) {
  const int64_t here = machine.MemoryBytes() / host_ranks;
  const auto room = static_cast<double>(std::max<int64_t>(0, here - plan.cache_bytes - plan.scratch_bytes));
  const auto always = static_cast<double>(plan.always_bytes), experts = static_cast<double>(plan.step.weights) - always;
  if (room < always) return always - room + experts;
  if (plan.expert_bytes == 0) return 0;
  return experts * std::max(0.0, 1 - (room - always) / static_cast<double>(plan.expert_bytes));
}

void AddSeconds(const RunConfig& flags, Machine& machine, DType compute, DecodeCost& cost) {
  const int64_t host_ranks = flags.Int("ranks_per_host");
  const auto share = static_cast<double>(host_ranks);  // ranks of a host share what it does
  const Network network = NetworkOf(flags, machine);
  const DecodePlan& plan = cost.plan;
  cost.reading = static_cast<double>(plan.step.weights + plan.cache_per_step) * 1e-9 * share / machine.MemoryGbS();
  cost.disk_bytes = DiskBytes(machine, plan, host_ranks);
  if (cost.disk_bytes > 0 && machine.KnowsDisk()) cost.disk = cost.disk_bytes * 1e-9 * share / machine.DiskGbS(".");
  cost.network = network.Seconds(plan.step.traffic);
  if (!machine.KnowsProducts(compute)) return;
  const double gflops = machine.Gflops(compute) / share;
  const auto seconds = [&](const PassCost& pass, int64_t cache) {
    const double reading = static_cast<double>(pass.weights + cache) * 1e-9 * share / machine.MemoryGbS();
    return std::max(pass.flops * 1e-9 / gflops, reading) + network.Seconds(pass.traffic);
  };
  cost.arithmetic = plan.step.flops * 1e-9 / gflops;
  cost.prompts = seconds(plan.prompts, 0);
  if (ShapeOf(flags).drafts > 0 && cost.disk_bytes == 0) cost.drafted = seconds(plan.drafted_step, plan.cache_per_step);
}

DecodeCost CostOn(const RunConfig& flags, Machine& machine, const Model& model, const MeshSizes& sizes) {
  const auto ranks = static_cast<int>(PlannedRanks(flags)), host_ranks = static_cast<int>(flags.Int("ranks_per_host"));
  const Mesh mesh(Comm::Planned(0, ranks, host_ranks), sizes);
  CheckDecodingMesh(flags, mesh, model.config);
  const Sharding sharding(model.config, mesh);
  const auto part = [&](const ParamSpec& param) { return sharding.Computed(param); };
  auto scope = std::make_optional<PlanScope>(NumThreads());  // loops run nothing while it lives
  const DecoderParams params = model.stored ? MapParams(*model.stored, part) : MapHubParams(model.config, part);
  if (ShapeOf(flags).drafts > 0) CheckDraftingModule(params, model.stored ? model.stored->dir().string() : flags.String("model_name"));
  const DType compute = ParseComputeDType(flags, "dtype");
  DecodeCost cost{PlanDecode(sharding, params, compute, ShapeOf(flags)), StoredBytes(params)};
  scope.reset();
  AddSeconds(flags, machine, compute, cost);  // may measure this machine
  return cost;
}

// Weights are read where they lie, in the dtype that they are stored in.
void AddMemory(Report& report, const RunConfig& flags, const Machine& machine, const DecodeCost& cost) {
  const DecodeShape shape = ShapeOf(flags);
  const bool alone = PlannedRanks(flags) == 1;
  report.Section("memory");
  for (const auto& [dtype, bytes] : cost.stored) {
    const char* note = dtype == DType::kF8E4M3 ? "in place, never expanded" : "in place";
    report.Bytes(fmt::format("weights {}", DTypeName(dtype)), bytes, note);
  }
  report.Bytes("touched", cost.plan.page_bytes,
               "pages that hold them, other ranks' columns too; without MTP modules, experts and rows of the embedding that no token has");
  report.Bytes("cache", cost.plan.cache_bytes, fmt::format("{} tokens", shape.sequences * shape.capacity));
  report.Bytes("scratch", cost.plan.scratch_bytes, "at most");
  AddProgram(report, Program::kDecoding, alone);
  AddMemoryTotal(report, machine, cost.RankBytes(alone));
  if (!alone) AddHostMemory(report, flags, machine, cost.RankBytes(alone));
}

// Weights that don't fit into memory come from the disk for every step, but for those that stay in the page cache.
std::string WhatBounds(Machine& machine, const RunConfig& flags, const DecodeCost& cost) {
  const std::string beside = cost.network > 0 ? ", then the network" : "";
  if (cost.disk_bytes > 0 && cost.disk == 0)
    return fmt::format("{:.2f} GB/s from memory{}; the disk's speed (disk_gb_s) bounds it further", machine.MemoryGbS(), beside);
  if (cost.disk > 0 && cost.disk == cost.local()) return fmt::format("{:.2f} GB/s from disk{}", machine.DiskGbS("."), beside);
  if (cost.reading == cost.local()) return fmt::format("{:.2f} GB/s from memory{}", machine.MemoryGbS(), beside);
  return fmt::format("all products at {:.0f} GFLOP/s{}", machine.Gflops(ParseComputeDType(flags, "dtype")), beside);
}

void AddTimes(Report& report, const RunConfig& flags, Machine& machine, const DecodeCost& cost) {
  const DecodeShape shape = ShapeOf(flags);
  const std::string step = shape.sequences == 1 ? "token" : "step";
  report.Section("time");
  report.Bytes("weights read per " + step, cost.plan.step.weights);
  report.Bytes("cache read per " + step, cost.plan.cache_per_step, "at the end of a full context");
  if (cost.disk_bytes > 0) report.Bytes("of it from disk", std::llround(cost.disk_bytes), "the weights don't fit into memory");
  if (cost.network > 0) AddNetworkTime(report, "network per " + step, flags, cost.network);
  if (cost.prompts > 0) {
    const std::string each = shape.sequences == 1 ? "" : fmt::format(" in each of {} prompts", shape.sequences);
    report.Seconds("first token after", cost.prompts, fmt::format("{} tokens{}", shape.prompt, each));
  }
  const double seconds = cost.local() + cost.network;
  report.TokensPerSecond("at most", static_cast<double>(shape.sequences) / seconds, WhatBounds(machine, flags, cost));
  if (cost.drafted > 0) {
    report.TokensPerSecond("with drafts at most", static_cast<double>(shape.sequences * (1 + shape.drafts)) / cost.drafted,
                           fmt::format("if all of {} are accepted", shape.sequences * shape.drafts));
  }
}

void PlanOnMesh(const RunConfig& flags, Machine& machine, const Model& model, Report& report) {
  const int64_t ranks = PlannedRanks(flags);
  const MeshSizes sizes = ReadMesh(flags, static_cast<int>(ranks));
  const DecodeCost cost = CostOn(flags, machine, model, sizes);
  AddModel(report, model.config);
  if (ranks > 1) AddMesh(report, flags, sizes, 0);
  AddMemory(report, flags, machine, cost);
  if (ranks > 1) {
    AddNetwork(report, "network, sent for the prompts by the first rank", sizes, cost.plan.prompts.traffic);
    AddNetwork(report, "network, sent in a step by the first rank", sizes, cost.plan.step.traffic);
  }
  if (ranks > 1 && ShapeOf(flags).drafts > 0)
    AddNetwork(report, "network, sent in a step with drafts by the first rank", sizes, cost.plan.drafted_step.traffic);
  AddTimes(report, flags, machine, cost);
}

// Sums after every product of heads and widths are for ranks of one host or of a few.
bool MayDecode(const RunConfig& flags, const MeshSizes& sizes) {
  constexpr int64_t kFew = 8;
  const auto of = [&](Axis axis) { return sizes[static_cast<size_t>(axis)].all(); };
  return of(Axis::kTensor) <= std::max(kFew, flags.Int("ranks_per_host")) && of(Axis::kTensor) * of(Axis::kExpert) == PlannedRanks(flags);
}

}  // namespace

void PlanDecoding(const RunConfig& flags, Machine& machine, Report& report) {
  const Model model = OpenModel(flags);
  if (!flags.Bool("search")) return PlanOnMesh(flags, machine, model, report);
  const auto cost = [&](const MeshSizes& sizes) {
    const DecodeCost c = CostOn(flags, machine, model, sizes);
    return MeshCost{sizes, model.config, c.RankBytes(PlannedRanks(flags) == 1), c.local(), c.network, c.plan.step.traffic};
  };
  SearchMesh(flags, machine, report, {"step", "work", [&](const MeshSizes& sizes) { return MayDecode(flags, sizes); }, cost});
}

}  // namespace fathom

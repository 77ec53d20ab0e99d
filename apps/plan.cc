// fathom plan: memory, disk and time of a command, from sizes alone.
#include <fmt/format.h>

#include <algorithm>

#include "apps/command.h"
#include "apps/convert.h"
#include "apps/plan_decode.h"
#include "apps/plan_mesh.h"
#include "apps/plan_network.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/error.h"
#include "fathom/base/progress.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/machine/limits.h"
#include "fathom/train/flops.h"
#include "fathom/train/memory.h"

namespace fathom {
namespace {

void AddDisk(Report& report, const TrainOptions& options, const std::vector<MemoryRow>& memory, bool waits) {
  int64_t bytes = 0;
  for (const MemoryRow& row : memory) bytes += row.what == "parameters" || row.what == "moments" ? row.bytes : 0;
  report.Section("disk");
  report.Bytes("one checkpoint", bytes,
               (options.keep > 0 ? fmt::format("{} are kept", options.keep) : std::string("all are kept")) +
                   (waits ? "; steps wait while one is written: there is no memory for a copy" : ""));
}

// Of what is mapped and has no room: each micro-batch goes through the layers forwards and backwards, and finds at either end what it has
// just left.
int64_t DiskBytesPerStep(const Machine& machine, const TrainOptions& options, const TrainPlan& plan) {
  const int64_t room = std::max<int64_t>(0, machine.MemoryBytes() - TotalBytes(plan.memory));
  return 2 * options.accumulation * std::max<int64_t>(0, plan.mapped - room);
}

void AddStepTime(Report& report, Machine& machine, const TrainOptions& options, const TrainPlan& plan) {
  report.Section("time");
  const double tokens = static_cast<double>(options.rows * options.length * options.accumulation);
  const double gflops = machine.Gflops(options.compute);
  double seconds = RunFlopsPerToken(plan.config, options) * tokens * 1e-9 / gflops;
  std::string note = fmt::format("{:.0f} tokens, all products at {:.0f} GFLOP/s", tokens, gflops);
  if (const int64_t bytes = DiskBytesPerStep(machine, options, plan); bytes > 0) {
    report.Bytes("read from disk per step", bytes, "what is mapped does not fit into memory beside the rest");
    const double disk = machine.KnowsDisk() ? machine.DiskGbS(".") : 0, reading = disk > 0 ? static_cast<double>(bytes) * 1e-9 / disk : 0;
    if (disk == 0) note += "; the disk's speed (disk_gb_s) bounds it further";
    if (reading > seconds) note = fmt::format("{:.0f} tokens, {:.2f} GB/s from disk", tokens, disk);
    seconds = std::max(seconds, reading);
  }
  report.Seconds("step at least", seconds, note);
  report.Seconds("run at least", seconds * static_cast<double>(options.steps), fmt::format("{} steps", options.steps));
}

void PlanOneProcess(const RunConfig& flags, Machine& machine, Report& report) {
  const TrainOptions options = ReadTrainOptions(flags);
  TrainPlan plan = PlanOf(flags, options);
  const bool waits = DropStateCopy(plan.memory, machine.MemoryBytes());
  const ModelConfig& config = plan.config;
  AddModel(report, config);
  AddMemory(report, machine, plan, true);
  if (options.checkpointing) AddDisk(report, options, plan.memory, waits);
  AddStepTime(report, machine, options, plan);
}

void PlanTraining(const RunConfig& flags, Machine& machine, Report& report) {
  if (flags.Bool("search")) return SearchTrainingMesh(flags, machine, report);
  if (PlannedRanks(flags) > 1) return PlanMesh(flags, machine, report);
  PlanOneProcess(flags, machine, report);
}

void PlanConversion(const RunConfig& flags, Machine& machine, Report& report) {
  ConvertOptions options = ReadConvertOptions(flags);
  if (IsPlannedByName(flags, options.input)) options.input.clear();
  const bool hub = options.input.empty();
  if (hub) options.model = [&flags] { return HubModel(flags); };
  if (hub) AddModel(report, HubModel(flags));
  const ConvertPlan plan = PlanConvert(options);
  report.Section("disk");
  report.Bytes("read", plan.input_bytes, hub ? "the model as the hub stores it" : options.input.string());
  report.Bytes("written", plan.output_bytes, fmt::format("{} files; so much must be free", plan.files));
  std::filesystem::path dir = std::filesystem::absolute(options.output.empty() ? "." : options.output);
  while (!std::filesystem::is_directory(dir)) dir = dir.parent_path();
  const auto free = static_cast<int64_t>(std::filesystem::space(dir).available);
  report.Bytes("free", free, free < plan.output_bytes ? "too little, on the disk of " + dir.string() : "on the disk of " + dir.string());
  report.Section("memory");
  report.Bytes("ceiling", options.memory_limit, "memory_limit");
  report.Section("time");
  const double disk = machine.DiskGbS(dir), gb = static_cast<double>(plan.input_bytes + plan.output_bytes) * 1e-9;
  report.Seconds("reading and writing", gb / disk, fmt::format("on one disk of {:.2f} GB/s", disk));
  report.Seconds("writing", static_cast<double>(plan.output_bytes) * 1e-9 / disk, "if it is read from another disk");
}

int Run(const RunConfig& config) {
  const std::string what = config.words().empty() ? "train" : config.words()[0];
  if (config.words().size() > 1) Throw(ErrorCode::kUsage, "plan {}: unexpected {}; flags are written key=value", what, config.words()[1]);
  if (what == "decode" && !config.String("hf_lora_adapter_path").empty())
    Throw(ErrorCode::kUsage, "hf_lora_adapter_path={}: fathom plan {} takes no adapter", config.String("hf_lora_adapter_path"), what);
  Machine machine(config);
  Report report;
  if (what == "train" || what == "sft") {
    PlanTraining(config, machine, report);
  } else if (what == "decode") {
    PlanDecoding(config, machine, report);
  } else if (what == "convert") {
    PlanConversion(config, machine, report);
  } else {
    Throw(ErrorCode::kUsage, "plan {}: allowed are train, sft, decode, convert", what);
  }
  report.Write(config.String("json"));
  return 0;
}

// Those of the planned commands, and its own.
std::vector<std::string> PlanFlags() {
  std::vector<std::string> flags = {"machine", "disk_gb_s", "search", "hosts", "ranks_per_host", "memory", "net_gb_s", "net_us"};
  for (const std::vector<std::string>& more : {TrainCommand().flags, DecodeCommand().flags, ConvertFlags()}) {
    for (const std::string& flag : more) {
      if (std::ranges::find(flags, flag) == flags.end()) flags.push_back(flag);
    }
  }
  return flags;
}

}  // namespace

Command PlanCommand() {
  return {.name = "plan",
          .summary = "memory, disk and time of a train, sft, decode or convert command, without running it",
          .flags = PlanFlags(),
          .run = Run,
          .operands = "[train|sft|decode|convert]"};
}

}  // namespace fathom

// fathom plan: memory, disk and time of a command, from sizes alone.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "apps/command.h"
#include "apps/convert.h"
#include "apps/plan_mesh.h"
#include "apps/plan_report.h"
#include "apps/readable_checkpoint.h"
#include "fathom/base/error.h"
#include "fathom/base/progress.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/checkpoint/hub/validate.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/infer/decode_plan.h"
#include "fathom/machine/limits.h"
#include "fathom/model/layer_flags.h"
#include "fathom/train/flops.h"
#include "fathom/train/memory.h"

namespace fathom {
namespace {

// The model and its tensors: a checkpoint's, or those that the hub has of the flags' model.
struct Planned {
  ModelConfig config;
  std::vector<TensorInfo> stored;
};

Planned OpenModel(const RunConfig& config, const ModelConfig& without_checkpoint) {
  const std::filesystem::path dir = config.String("load_parameters_path");
  if (dir.empty()) return {without_checkpoint, HubTensors(without_checkpoint, IsFp8OnHub(without_checkpoint))};
  const Checkpoint checkpoint = OpenCheckpoint(config, dir);
  CheckModelName(config, checkpoint.config(), (dir / "config.json").string());
  return {checkpoint.config(), StoredTensors(checkpoint)};
}

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
  AddMemory(report, machine, plan);
  if (options.checkpointing) AddDisk(report, options, plan.memory, waits);
  AddStepTime(report, machine, options, plan);
}

void PlanTraining(const RunConfig& flags, Machine& machine, Report& report) {
  if (flags.Bool("search")) return SearchMesh(flags, machine, report);
  if (PlannedRanks(flags) > 1) return PlanMesh(flags, machine, report);
  PlanOneProcess(flags, machine, report);
}

// What a token reads of weights that memory has no room for, if what every token reads stays there first, then as many experts as there is
// room for.
double DiskGbPerToken(const Machine& machine, const DecodePlan& plan) {
  const auto room = static_cast<double>(std::max<int64_t>(0, machine.MemoryBytes() - plan.cache_bytes - plan.scratch_bytes));
  const auto experts = static_cast<double>(plan.experts_per_token), always = static_cast<double>(plan.weights_per_token) - experts;
  if (room < always) return (always - room + experts) * 1e-9;
  if (plan.expert_bytes == 0) return 0;
  return experts * std::max(0.0, 1 - (room - always) / static_cast<double>(plan.expert_bytes)) * 1e-9;
}

// Weights that don't fit into memory come from the disk for every token, but for those that stay in the page cache.
void AddDecodeRate(Report& report, Machine& machine, const DecodePlan& plan) {
  const double gb = static_cast<double>(plan.weights_per_token + plan.cache_per_token) * 1e-9, from_disk = DiskGbPerToken(machine, plan);
  report.Section("time");
  report.Bytes("weights read per token", plan.weights_per_token);
  report.Bytes("cache read per token", plan.cache_per_token, "at the end of a full context");
  if (from_disk > 0) report.Bytes("of it from disk", static_cast<int64_t>(from_disk * 1e9), "the weights don't fit into memory");
  const double memory = machine.MemoryGbS();
  if (from_disk > 0 && !machine.KnowsDisk()) {
    report.TokensPerSecond("at most", memory / gb,
                           fmt::format("{:.2f} GB/s from memory; the disk's speed (disk_gb_s) bounds it further", memory));
    return;
  }
  const double disk = from_disk > 0 ? machine.DiskGbS(".") : 0, disk_time = from_disk > 0 ? from_disk / disk : 0;
  const std::string note =
      disk_time > gb / memory ? fmt::format("{:.2f} GB/s from disk", disk) : fmt::format("{:.2f} GB/s from memory", memory);
  report.TokensPerSecond("at most", 1 / std::max(disk_time, gb / memory), note);
}

// Weights are read where they lie, in the dtype that they are stored in.
void AddStored(Report& report, const std::vector<TensorInfo>& stored) {
  std::map<DType, int64_t> bytes;
  for (const TensorInfo& tensor : stored) bytes[tensor.dtype] += tensor.NumBytes();
  for (const auto& [dtype, sum] : bytes) {
    const char* note = dtype == DType::kF8E4M3 ? "in place, never expanded" : "in place";
    report.Bytes(fmt::format("weights {}", DTypeName(dtype)), sum, note);
  }
}

void PlanDecoding(const RunConfig& flags, Machine& machine, Report& report) {
  const Planned model = OpenModel(flags, HubModel(flags));
  const int64_t capacity = flags.Int("max_target_length"), sequences = flags.Int("batch_size");
  DecodePlan plan = PlanDecode(model.config, model.stored, ParseComputeDType(flags, "dtype"), capacity);
  plan.cache_bytes *= sequences;
  AddModel(report, model.config);
  report.Section("memory");
  AddStored(report, model.stored);
  report.Bytes("cache", plan.cache_bytes, fmt::format("{} tokens", sequences * capacity));
  report.Bytes("scratch", plan.scratch_bytes, "at most");
  AddMemoryTotal(report, machine, plan.weight_bytes + plan.cache_bytes + plan.scratch_bytes);
  AddDecodeRate(report, machine, plan);
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
  if (what != "convert" && !config.String("hf_lora_adapter_path").empty())
    Throw(ErrorCode::kUsage, "hf_lora_adapter_path={}: fathom plan {} takes no adapter", config.String("hf_lora_adapter_path"), what);
  Machine machine(config);
  Report report;
  if (what == "train" || what == "sft") {
    PlanTraining(config, machine, report);
  } else if (what == "decode") {
    ReadMesh(config, 1);  // of several ranks nothing is foreseen
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
  std::vector<std::string> flags = {"machine",        "disk_gb_s", "batch_size", "search", "hosts",
                                    "ranks_per_host", "memory",    "net_gb_s",   "net_us"};
  for (const std::vector<std::string>& more : {TrainCommand().flags, ConvertFlags()}) {
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

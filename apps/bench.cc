// fathom bench: what this machine can do, what part of it training and decoding reach, and how work would be cut for more threads.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "apps/bench_engine.h"
#include "apps/bench_plan.h"
#include "apps/command.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/threads.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/model/layer_flags.h"

namespace fathom {
namespace {

struct Line {
  std::string key;  // in the JSON
  std::string what, unit;
  Rate rate;
  double fraction = 0;  // of what the machine can do; 0: this is what it can do
};

constexpr std::array kSections = {"gemm", "memory", "disk", "train", "decode", "plan"};

bool Named(const RunConfig& config, const std::string& section) { return std::ranges::count(config.words(), section) > 0; }
// Without words, the machine's limits.
bool Asked(const RunConfig& config, const std::string& section) { return config.words().empty() || Named(config, section); }

void CheckWords(const RunConfig& config) {
  for (const std::string& word : config.words()) {
    if (std::ranges::count(kSections, word) == 0) Throw(ErrorCode::kUsage, "bench {}: allowed are {}", word, fmt::join(kSections, ", "));
  }
  if (Named(config, "plan") && config.words().size() > 1) Throw(ErrorCode::kUsage, "bench plan stands alone");
}

// Where the disk is measured: the folder that was named, else the one of the JSON file, else the current one.
std::filesystem::path DiskFolder(const RunConfig& config) {
  if (!config.String("output").empty()) return config.String("output");
  const std::filesystem::path json = config.String("json");
  const bool file = !json.empty() && json != "-" && !json.string().starts_with("/dev/");
  return file && json.has_parent_path() ? json.parent_path() : ".";
}

void AddEngine(const RunConfig& config, std::vector<Line>& lines) {
  if (Named(config, "train")) {
    const DType compute = ParseComputeDType(config, "dtype");
    const EngineRate r = BenchTrain(config, MeasureProducts(compute).median);
    lines.push_back({"train_tokens_per_s", "training", "tokens/s", r.tokens_per_s, r.fraction});
  }
  if (Named(config, "decode")) {
    const EngineRate r = BenchDecode(config, MeasureMemoryRead().median);
    lines.push_back({"decode_tokens_per_s", "decoding", "tokens/s", r.tokens_per_s, r.fraction});
  }
}

std::vector<Line> Measure(const RunConfig& config) {
  std::vector<Line> lines;
  if (Asked(config, "gemm")) {
    lines.push_back({"vector_f32_gflops", "vector units, float32", "GFLOP/s", MeasureVectorUnits(DType::kF32)});
    if (HasPairInstruction())
      lines.push_back({"vector_bf16_gflops", "vector units, bfloat16", "GFLOP/s", MeasureVectorUnits(DType::kBF16)});
    lines.push_back({"gemm_f32_gflops", "products, float32", "GFLOP/s", MeasureProducts(DType::kF32)});
    lines.push_back({"gemm_bf16_gflops", "products, bfloat16", "GFLOP/s", MeasureProducts(DType::kBF16)});
  }
  if (Asked(config, "memory")) lines.push_back({"read_gb_s", "memory, read", "GB/s", MeasureMemoryRead()});
  if (Asked(config, "disk")) lines.push_back({"disk_write_gb_s", "disk, write and sync", "GB/s", MeasureDiskWrite(DiskFolder(config))});
  AddEngine(config, lines);
  return lines;
}

void Print(const std::vector<Line>& lines) {
  fmt::print("{}, {} threads, {} GB of memory, SIMD target {}\n", CpuName(), NumThreads(), MemoryBytes() / 1'000'000'000, LiveSimdTarget());
  if (!HasNativeBF16() && !HasMatrixUnit()) {
    fmt::print("{}: bfloat16 products run in float32 on panels converted in cache\n",
               HasPairInstruction() ? "vdpbf16ps is slower than float32 here" : "no native bfloat16");
  }
  fmt::print("\n{:<22} {:>9}           slowest   fastest run\n", "", "median");
  for (const Line& line : lines) {
    const std::string share = line.fraction > 0 ? fmt::format("  {:.0f} % of the machine's bound", 100 * line.fraction) : "";
    fmt::print("{:<22} {:>9.2f} {:<8} {:>8.2f}  {:>8.2f}{}\n", line.what, line.rate.median, line.unit, line.rate.low, line.rate.high,
               share);
  }
}

Json ToJson(const std::vector<Line>& lines) {
  Json json = {{"cpu", CpuName()},
               {"threads", NumThreads()},
               {"memory_bytes", MemoryBytes()},
               {"simd", LiveSimdTarget()},
               {"native_bf16", HasNativeBF16() || HasMatrixUnit()}};
  for (const Line& line : lines) {
    json[line.key] = line.rate.median;
    json["range"][line.key] = {line.rate.low, line.rate.high};
    if (line.fraction > 0) json["fraction_of_bound"][line.key] = line.fraction;
  }
  return json;
}

int Run(const RunConfig& config) {
  CheckWords(config);
  const std::string& json = config.String("json");
  const bool quiet = json == "-" || json == "/dev/stdout";
  const auto write = [&](const Json& result) {
    if (!json.empty()) WriteOutput(json, JsonText(result));
    return 0;
  };
  if (Named(config, "plan")) return write(BenchPlan(config, quiet));
  const std::vector<Line> lines = Measure(config);
  if (!quiet) Print(lines);
  return write(ToJson(lines));
}

}  // namespace

Command BenchCommand() {
  std::vector<std::string> flags = {"output"};
  for (const std::string& flag : TrainCommand().flags) flags.push_back(flag);
  return {.name = "bench",
          .summary =
              "what this machine can do (gemm, memory, disk), what part of it training and decoding reach, how work is cut for many "
              "threads (plan)",
          .flags = flags,
          .run = Run,
          .operands = "[gemm] [memory] [disk] [train] [decode] | plan"};
}

}  // namespace fathom

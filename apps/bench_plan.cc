#include "apps/bench_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <compare>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/plan_scope.h"
#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/infer/decode_plan.h"
#include "fathom/machine/limits.h"
#include "fathom/model/layer_flags.h"
#include "fathom/model/load.h"
#include "fathom/train/load_model.h"
#include "fathom/train/session.h"

namespace fathom {
namespace {

constexpr std::array kThreads = {16, 64, 128, 256};
constexpr std::array<int64_t, 3> kSequences = {1, 8, 32};
// Of the time, from which on a kernel counts; and what its busiest thread may have over the mean.
constexpr double kLeastShare = 0.01, kEvenEnough = 1.25;

// What a second does of arithmetic and of reading. Threads are taken to bring both in the proportion of this machine's.
struct Speed {
  double flops, bytes;
};

struct Cut {
  int64_t jobs = 0;
  double largest_over_mean = 0;
};
// Kernels of one name and size, for each of kThreads.
struct Kernel {
  const char* name;
  double flops, bytes;
  auto operator<=>(const Kernel&) const = default;
};
struct Cuts {
  double seconds = 0;
  std::array<Cut, kThreads.size()> cuts;
};
using Work = std::function<void(Trace&)>;

std::map<Kernel, Cuts> KernelsOf(const Work& work, const Speed& speed) {
  std::map<Kernel, Cuts> kernels;
  for (size_t t = 0; t < kThreads.size(); ++t) {
    const PlanScope plan(kThreads[t], PlanScope::Rows::kEven);
    Trace trace;
    work(trace);
    for (const Trace::Slice& s : trace.slices()) {
      if (s.flops == 0 && s.bytes == 0) continue;
      Cuts& kernel = kernels[{s.name, s.flops, s.bytes}];
      kernel.cuts[t] = {s.jobs, s.largest_over_mean};
      if (t == 0) kernel.seconds += std::max(s.flops / speed.flops, s.bytes / speed.bytes);
    }
  }
  return kernels;
}

// Rows of those that take more than kLeastShare, the longest first.
Json TableOf(const std::map<Kernel, Cuts>& kernels) {
  double total = 0;
  std::vector<std::pair<double, Kernel>> order;
  for (const auto& [kernel, cuts] : kernels) {
    total += cuts.seconds;
    order.emplace_back(cuts.seconds, kernel);
  }
  std::ranges::sort(order, std::greater());
  Json rows = Json::array();
  for (const auto& [seconds, kernel] : order) {
    if (seconds < kLeastShare * total) break;
    Json row = {{"kernel", kernel.name}, {"share", seconds / total}, {"gflop", 1e-9 * kernel.flops}, {"mb", 1e-6 * kernel.bytes}};
    for (const Cut& cut : kernels.at(kernel).cuts) {
      row["jobs"].push_back(cut.jobs);
      row["largest_over_mean"].push_back(cut.largest_over_mean);
    }
    rows.push_back(row);
  }
  return rows;
}

// The kernels of a table that some number of threads does not share evenly enough, as lines.
void AddUneven(const std::string& what, const Json& rows, Json& uneven) {
  for (const Json& row : rows) {
    for (size_t t = 0; t < kThreads.size(); ++t) {
      const double ratio = row["largest_over_mean"][t].get<double>();
      if (ratio <= kEvenEnough) continue;
      uneven.push_back(fmt::format("{}: {}, {:.1f} % of the time: {:.2f} with {} threads", what, row["kernel"].get<std::string>(),
                                   100 * row["share"].get<double>(), ratio, kThreads[t]));
    }
  }
}

void Print(const std::string& what, const Json& rows) {
  fmt::print("\n{}\n{:<36} {:>6} {:>9} {:>9}", what, "", "share", "GFLOP", "MB");
  for (const int threads : kThreads) fmt::print("  {:>5} threads", threads);
  fmt::print("\n");
  for (const Json& row : rows) {
    fmt::print("{:<36} {:>5.1f}% {:>9.3g} {:>9.3g}", row["kernel"].get<std::string>(), 100 * row["share"].get<double>(),
               row["gflop"].get<double>(), row["mb"].get<double>());
    for (size_t t = 0; t < kThreads.size(); ++t)
      fmt::print("  {:>6} {:>6.2f}", row["jobs"][t].get<int64_t>(), row["largest_over_mean"][t].get<double>());
    fmt::print("\n");
  }
}

void TraceDecoding(const ModelConfig& model, DType compute, const PassShape& shape, Trace& trace) {
  const DecoderParams params = MapHubParams(model);
  const TraceScope scope(trace);
  PlanPass(model, params, compute, shape);
}

void TraceStep(const RunConfig& config, const TrainOptions& options, Trace& trace) {
  LoadedModel loaded = LoadModel(config, options, options.load_parameters_path);
  TrainSession session(loaded.config, options, std::move(loaded.params));
  const TraceScope scope(trace);
  session.Step(FullBatch(options.rows * options.accumulation, options.length), 0);
}

}  // namespace

Json BenchPlan(const RunConfig& config, bool quiet) {
  if (!config.Given("model_name")) Throw(ErrorCode::kUsage, "bench plan needs model_name=");
  const TrainOptions options = ReadTrainOptions(config);
  const ModelConfig model = HubModel(config);
  const auto share = 1.0 / NumThreads();
  const Speed speed{1e9 * share * QuickProductRate(options.compute), 1e9 * share * MeasureMemoryRead().median};
  Json tables = Json::object(), uneven = Json::array();
  const auto add = [&](const std::string& what, const Work& work) {
    tables[what] = TableOf(KernelsOf(work, speed));
    AddUneven(what, tables[what], uneven);
    if (!quiet) Print(what, tables[what]);
  };
  for (const int64_t sequences : kSequences) {
    add(fmt::format("decoding {} of {} tokens", sequences, options.length), [&](Trace& trace) {
      TraceDecoding(model, options.compute, {sequences, 1, options.length}, trace);
    });
  }
  add(fmt::format("a training step of {} x {} tokens", options.rows * options.accumulation, options.length),
      [&](Trace& trace) { TraceStep(config, options, trace); });
  if (!quiet) fmt::print("\nabove {}: {}\n", kEvenEnough, uneven.empty() ? "none" : "");
  for (const Json& line : uneven) {
    if (!quiet) fmt::print("  {}\n", line.get<std::string>());
  }
  tables["uneven"] = uneven;
  return tables;
}

}  // namespace fathom

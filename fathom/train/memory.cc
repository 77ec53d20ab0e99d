#include "fathom/train/memory.h"

#include <fmt/ranges.h>

#include <set>

#include "fathom/base/log.h"
#include "fathom/base/progress.h"
#include "fathom/base/threads.h"
#include "fathom/model/adapters.h"
#include "fathom/train/text_samples.h"

namespace fathom {
namespace {

// Bytes of the tensors that `seen` does not hold yet, in memory of their own or mapped from a file: one memory under two names is one.
int64_t BytesOf(DecoderParams& params, bool owned, std::set<const std::byte*>& seen) {
  int64_t bytes = 0;
  const auto add = [&](const Tensor& tensor) {
    if (!tensor.empty() && tensor.writable() == owned && seen.insert(tensor.view().raw()).second) bytes += tensor.NumBytes();
  };
  for (const NamedWeight& w : ListParams(params)) {
    add(w.weight->value);
    add(w.weight->scale_inv);
  }
  for (const NamedAdapter& a : ListAdapters(params)) {
    add(a.adapter->a);
    add(a.adapter->b);
  }
  return bytes;
}

int64_t MomentBytes(const Optimizer& optimizer) {
  int64_t bytes = 0;
  for (const Optimizer::Moments& moments : optimizer.moments())
    bytes += moments.m.NumBytes() + (moments.v.empty() ? 0 : moments.v.NumBytes());
  return bytes;
}

// Of a step, by the step's own code. It is linear in the passes, of which there may be hundreds.
AxisTraffic PlanStep(TrainSession& session, const TrainOptions& options) {
  const PlanScope plan(NumThreads(), PlanScope::Rows::kEven);
  const auto step = [&](int64_t passes) {
    const AxisTraffic before = TrafficByAxis(options.mesh);
    session.Step(FullBatch(options.rows * passes, options.length), 0);
    return AddTraffic(TrafficByAxis(options.mesh), before, -1);
  };
  const AxisTraffic one = step(1);
  return options.accumulation == 1 ? one : AddTraffic(one, AddTraffic(step(2), one, -1), options.accumulation - 1);
}

}  // namespace

std::vector<MemoryRow> SessionMemory(TrainSession& session, const TrainOptions& options) {
  std::set<const std::byte*> seen;
  const int64_t parameters = BytesOf(session.params(), true, seen), copies = BytesOf(session.compute_params(), true, seen);
  const int64_t moments = MomentBytes(session.optimizer());
  std::vector<MemoryRow> rows = {{"parameters", parameters},
                                 {"bf16 copy", copies},
                                 {"gradients", BytesOf(session.grads(), true, seen)},
                                 {"moments", moments},
                                 {"whole layers", session.SplitBytes()},
                                 {"activations", session.expected().saved},
                                 {"scratch", session.expected().scratch + session.optimizer().scratch_bytes()},
                                 {"sums over ranks", session.SumBytes()}};
  const auto is_absent = [](const MemoryRow& row) {
    return row.bytes == 0 && (row.what == "whole layers" || row.what == "sums over ranks");
  };
  std::erase_if(rows, is_absent);
  if (options.samples.period > 0) rows.push_back({"text samples", PlanSamples(options, session)});
  if (options.CopiesState()) rows.push_back({kStateCopy, parameters + moments});
  return rows;
}

int64_t TotalBytes(const std::vector<MemoryRow>& rows) {
  int64_t total = 0;
  for (const MemoryRow& row : rows) total += row.bytes;
  return total;
}

void LogMemoryTable(const std::vector<MemoryRow>& rows) {
  const auto print = [](const std::string& what, int64_t bytes) {
    spdlog::info("  {:<12} {:>10}", what, FormatBytes(static_cast<double>(bytes)));
  };
  spdlog::info("memory:");
  for (const MemoryRow& row : rows) print(row.what, row.bytes);
  print("in all", TotalBytes(rows));
}

bool DropStateCopy(std::vector<MemoryRow>& rows, int64_t free) {
  if (rows.back().what != kStateCopy || TotalBytes(rows) <= free) return false;
  rows.pop_back();
  return true;
}

void CheckFits(const std::vector<MemoryRow>& rows, int64_t free, const TrainOptions& options) {
  const int64_t total = TotalBytes(rows);
  if (total <= free) return;
  std::vector<std::string> ways;
  if (options.remat != Remat::kFull) ways.push_back("remat_policy=full");
  ways.push_back(options.rows > 1 ? "a smaller per_device_batch_size" : "a smaller max_target_length");
  if (options.weights == DType::kF32) ways.push_back("weight_dtype=bfloat16");
  ways.push_back("training fewer parameters (trainable_parameters_mask, LoRA)");
  const auto shown = [](int64_t bytes) { return FormatBytes(static_cast<double>(bytes)); };
  Throw(ErrorCode::kResource, "memory: {} are needed, {} are free: {} are missing; what helps: {}; fathom plan shows what each takes",
        shown(total), shown(free), shown(total - free), fmt::join(ways, ", "));
}

TrainPlan PlanTraining(const TrainOptions& options, int threads, FunctionRef<LoadedModel()> load) {
  const PlanScope plan(threads);
  LoadedModel model = load();
  TrainSession session(model.config, options, std::move(model.params));
  std::set<const std::byte*> seen;
  TrainPlan result{model.config, SessionMemory(session, options), BytesOf(session.params(), false, seen)};
  if (options.mesh.world().planned()) result.traffic = PlanStep(session, options);
  return result;
}

}  // namespace fathom

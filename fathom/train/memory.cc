#include "fathom/train/memory.h"

#include <set>

#include "fathom/base/threads.h"
#include "fathom/model/adapters.h"
#include "fathom/train/load_model.h"

namespace fathom {
namespace {

// Bytes of the tensors that have memory of their own and that `seen` does not hold yet: one memory under two names is one.
int64_t OwnBytes(DecoderParams& params, std::set<const std::byte*>& seen) {
  int64_t bytes = 0;
  for (const NamedWeight& w : ListParams(params)) {
    for (const Tensor* tensor : {&w.weight->value, &w.weight->scale_inv}) {
      if (!tensor->empty() && tensor->writable() && seen.insert(tensor->view().raw()).second) bytes += tensor->NumBytes();
    }
  }
  for (const NamedAdapter& a : ListAdapters(params)) {
    if (seen.insert(a.adapter->a.view().raw()).second) bytes += a.adapter->a.NumBytes() + a.adapter->b.NumBytes();
  }
  return bytes;
}

int64_t MomentBytes(const Optimizer& optimizer) {
  int64_t bytes = 0;
  for (const Optimizer::Moments& moments : optimizer.moments()) bytes += moments.m.NumBytes() + moments.v.NumBytes();
  return bytes;
}

}  // namespace

std::vector<MemoryRow> SessionMemory(TrainSession& session) {
  std::set<const std::byte*> seen;
  const int64_t parameters = OwnBytes(session.params(), seen), copies = OwnBytes(session.compute_params(), seen);
  return {{"parameters", parameters},
          {"bf16 copy", copies},
          {"gradients", OwnBytes(session.grads(), seen)},
          {"moments", MomentBytes(session.optimizer())},
          {"activations", session.counted().saved},
          {"scratch", session.counted().scratch}};
}

int64_t TotalBytes(const std::vector<MemoryRow>& rows) {
  int64_t total = 0;
  for (const MemoryRow& row : rows) total += row.bytes;
  return total;
}

TrainPlan PlanTraining(const RunConfig& config, const TrainOptions& options, const std::filesystem::path& dir, int threads) {
  const PlanScope plan(threads);
  LoadedModel model = LoadModel(config, options, dir);
  TrainSession session(model.config, options, std::move(model.params));
  return {model.config, SessionMemory(session)};
}

}  // namespace fathom

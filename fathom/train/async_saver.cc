#include "fathom/train/async_saver.h"

#include <chrono>
#include <cstring>

#include "fathom/base/pulse.h"
#include "fathom/base/threads.h"
#include "fathom/model/adapters.h"

namespace fathom {
namespace {

constexpr int64_t kCopyGrain = 1 << 20;  // bytes

void CopyBytes(ConstView from, View to) {
  ParallelRanges(from.NumBytes(), kCopyGrain,
                 [&](int64_t begin, int64_t end) { std::memcpy(to.raw() + begin, from.raw() + begin, static_cast<size_t>(end - begin)); });
}

// What steps may change, and where.
template <class F>
void ForLiveTensors(TrainSession& session, const F& f) {
  for (const NamedWeight& w : ListParams(session.params())) {
    if (w.weight->value.writable()) f(w.weight->value.view());
  }
  for (const NamedAdapter& a : ListAdapters(session.params())) {
    f(a.adapter->a.view());
    f(a.adapter->b.view());
  }
  for (const auto& moments : session.optimizer().moments()) {
    f(moments.m);
    f(moments.v);
  }
}

}  // namespace

AsyncSaver::~AsyncSaver() {
  if (!writing_.valid()) return;
  const Pulse::Beside saver;
  writing_.wait();
}

bool AsyncSaver::done() const { return writing_.valid() && writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }

void AsyncSaver::Copy(SavedTensor& tensor) {
  const auto copy = copies_.find(tensor.part.raw());
  if (copy != copies_.end()) tensor.part = copy->second.view();
}

void AsyncSaver::Start(PendingSave save, TrainSession& session) {
  FATHOM_CHECK(!running(), "step {} is still being saved", step_);
  ForLiveTensors(session, [&](ConstView from) {
    if (from.empty()) return;
    Tensor& copy = copies_[from.raw()];
    if (copy.empty()) copy = Tensor(from.dtype(), from.shape());
    CopyBytes(from, copy.mutable_view());
  });
  for (SavedTensor& tensor : save.tensors) Copy(tensor);
  for (auto& [slot, tensors] : save.state.slots) {
    for (SavedTensor& tensor : tensors) Copy(tensor);
  }
  step_ = save.state.step;
  writing_ = std::async(std::launch::async, [save = std::move(save)] {
    UnbindThread();
    WriteSave(save);
  });
}

int64_t AsyncSaver::Wait() {
  const Pulse::Beside saver;
  writing_.get();
  return step_;
}

}  // namespace fathom

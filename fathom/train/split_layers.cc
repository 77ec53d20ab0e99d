#include "fathom/train/split_layers.h"

#include <algorithm>
#include <utility>

#include "fathom/base/plan_scope.h"
#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

constexpr int64_t kAlign = 64;
constexpr int64_t kRoot = -1;

int64_t Aligned(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

Tensor Memory(int64_t bytes) { return Tensor(DType::kF32, {bytes / 4}); }

}  // namespace

SplitLayers::SplitLayers(const Placement& placement, DecoderParams& kept, Use use, Courier& courier)
    : placement_(placement),
      comm_(placement.sharding().mesh().comm(Axis::kFsdp)),
      beside_(comm_, Channel::kLayers, courier),
      use_(use),
      whole_(kept) {
  Lay(kept);
  whole_.store = this;
}

// Addresses in three memories: of what belongs to no layer, and of one layer at a time.
void SplitLayers::Lay(DecoderParams& kept) {
  const auto whole_bytes = [&](const ParamSpec& param, const Weight& w) {
    return Aligned(ShapeOf(placement_.sharding().Computed(param), param.shape).NumElements() * DTypeSize(w.value.dtype()));
  };
  std::map<const std::byte*, int64_t> offsets;  // by what is kept: one memory under two names is one
  std::map<int64_t, int64_t> used;              // by layer
  for (const auto& [param, w] : ListParams(kept)) {
    if (!placement_.IsSplit(*param) || offsets.contains(w->value.view().raw())) continue;
    offsets[w->value.view().raw()] = used[param->layer];
    used[param->layer] += whole_bytes(*param, *w);
  }
  int64_t most[3] = {};
  for (const auto& [layer, bytes] : used) {
    const size_t memory = layer == kRoot ? 0 : 1 + static_cast<size_t>(layer % 2);
    layers_[layer].memory = memory;
    most[memory] = std::max(most[memory], bytes);
  }
  for (const int64_t bytes : most) memory_.push_back(Memory(bytes));
  std::map<const std::byte*, Tensor> made;
  for (const auto& [param, w] : ListParams(kept)) {
    if (!placement_.IsSplit(*param)) continue;
    Tensor& tensor = made[w->value.view().raw()];
    if (tensor.empty()) {
      Layer& layer = layers_[param->layer];
      Tensor& memory = memory_[layer.memory];
      const View whole(memory.mutable_view().raw() + offsets.at(w->value.view().raw()), w->value.dtype(),
                       ShapeOf(placement_.sharding().Computed(*param), param->shape));
      tensor = Tensor::Sharing(memory.owner(), whole);
      layer.tensors.push_back({param, whole, w->value.mutable_view()});
    }
    whole_[*param].value = tensor;
  }
  if (use_ == Use::kGather) return;
  int64_t received = 0;
  for (const auto& [number, layer] : layers_) {
    int64_t bytes = 0;
    for (const SplitTensor& tensor : layer.tensors) bytes += Aligned(tensor.part.NumBytes());
    received = std::max(received, bytes * comm_.size());
  }
  received_ = Memory(received);
}

int64_t SplitLayers::NumBytes() const {
  int64_t bytes = received_.NumBytes();
  for (const Tensor& memory : memory_) bytes += memory.NumBytes();
  return bytes;
}

View SplitLayers::RowsOf(const SplitTensor& tensor, int r) const {
  const int64_t first = placement_.sharding().Computed(*tensor.spec).row_begin;
  const Region rows = placement_.sharding().RowsOf(*tensor.spec, r);
  return tensor.whole.Rows(rows.row_begin - first, rows.row_end - first);
}

void SplitLayers::Gather(const Comm& comm, const std::vector<SplitTensor>& list) const {
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  for (const SplitTensor& tensor : list) {
    for (int r = 0; r < comm_.size(); ++r) {
      const View rows = RowsOf(tensor, r);
      if (r == comm_.rank()) {
        Cast(tensor.part, rows);
      } else {
        out.push_back({r, BytesOf(ConstView(tensor.part))});
        in.push_back({r, BytesOf(rows)});
      }
    }
  }
  comm.Exchange(out, in);
}

// Is it whole in its memory, or on its way there? The last layers of the forward are the first of the backward.
bool SplitLayers::IsHeld(int64_t layer) const { return held_[layers_.at(layer).memory] == layer; }

void SplitLayers::Post(int64_t layer) {
  errand_ = layer;
  held_[layers_.at(layer).memory] = layer;
  beside_.Begin(
      [this, &list = layers_.at(layer).tensors](const Comm& comm) { use_ == Use::kGather ? Gather(comm, list) : Exchange(comm, list); });
}

void SplitLayers::Await() {
  beside_.Await();
  errand_.reset();
}

// The layer that followed this one at the same place of the last pass, unless it lies in the same memory. Every rank has the same passes.
void SplitLayers::GatherNext(int64_t layer) {
  const size_t place = order_.size();
  if (place >= last_.size() || last_[place - 1] != layer) return;
  const int64_t next = last_[place];
  if (next != kRoot && layers_.at(next).memory != layers_.at(layer).memory && !IsHeld(next)) Post(next);
}

// What was gathered ahead and not used: the values are about to change.
void SplitLayers::Forget() {
  if (errand_) Await();
}

void SplitLayers::BeginGathered(int64_t layer) {
  order_.push_back(layer);
  if (errand_) Await();
  if (!IsHeld(layer)) {
    Post(layer);
    Await();
  }
  GatherNext(layer);
}

void SplitLayers::PlanGathered(int64_t layer) {
  if (IsHeld(layer)) return;
  held_[layers_.at(layer).memory] = layer;
  Gather(comm_, layers_.at(layer).tensors);
}

// Sends the rows of other ranks and receives those of this rank's.
void SplitLayers::Exchange(const Comm& comm, const std::vector<SplitTensor>& list) {
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  pieces_.clear();
  std::byte* at = received_.mutable_view().raw();
  for (const SplitTensor& tensor : list) {
    for (int r = 0; r < comm_.size(); ++r) {
      const View rows = RowsOf(tensor, r);
      if (r == comm_.rank()) {
        pieces_.push_back(rows);
        continue;
      }
      pieces_.emplace_back(at, DType::kF32, tensor.part.shape());
      at += Aligned(tensor.part.NumBytes());
      out.push_back({r, BytesOf(ConstView(rows))});
      in.push_back({r, BytesOf(pieces_.back())});
    }
  }
  comm.Exchange(out, in);
}

void SplitLayers::Collect() {
  if (!errand_) return;
  const int64_t layer = *errand_;
  Await();
  Add(layers_.at(layer).tensors);
}

// What was exchanged to the kept rows, summed in the order of the ranks.
void SplitLayers::Add(const std::vector<SplitTensor>& list) {
  const auto n = static_cast<size_t>(comm_.size());
  for (size_t i = 0; i < list.size(); ++i) {
    for (size_t r = 1; r < n; ++r) AddScaled(1, pieces_[i * n + r], pieces_[i * n]);
    AddScaled(1, pieces_[i * n], list[i].part);
  }
}

void SplitLayers::Begin(int64_t layer) {
  if (layer == kRoot) {
    last_ = std::exchange(order_, {});
    held_ = kNone;
  }
  const auto found = layers_.find(layer);
  if (found == layers_.end()) return;
  const std::vector<SplitTensor>& list = found->second.tensors;
  if (use_ == Use::kGather) return PlanScope::Active() ? PlanGathered(layer) : BeginGathered(layer);
  if (errand_ && layers_.at(*errand_).memory == found->second.memory) Collect();
  for (const SplitTensor& tensor : list) Fill(0, tensor.whole);
}

void SplitLayers::End(int64_t layer) {
  if (use_ == Use::kScatter) EndSummed(layer);
  if (use_ == Use::kGather && layer == kRoot) Forget();
}

void SplitLayers::EndSummed(int64_t layer) {
  const auto found = layers_.find(layer);
  if (found != layers_.end()) {
    const std::vector<SplitTensor>& list = found->second.tensors;
    if (PlanScope::Active()) return Exchange(comm_, list);
    Collect();
    Post(layer);
  }
  if (layer == kRoot) Collect();
}

}  // namespace fathom

#include "fathom/train/split_layers.h"

#include <algorithm>

#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

constexpr int64_t kAlign = 64;

int64_t Aligned(int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

Tensor Memory(int64_t bytes) { return Tensor(DType::kF32, {bytes / 4}); }

}  // namespace

SplitLayers::SplitLayers(const Placement& placement, DecoderParams& kept, Use use)
    : placement_(placement), comm_(placement.sharding().mesh().comm(Axis::kFsdp)), use_(use), whole_(kept) {
  Lay(kept);
  whole_.store = this;
}

// Addresses in two memories: of what belongs to no layer, and of one layer at a time.
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
  int64_t largest = 0;
  for (const auto& [layer, bytes] : used) largest = layer < 0 ? largest : std::max(largest, bytes);
  root_memory_ = Memory(used[-1]);
  layer_memory_ = Memory(largest);
  std::map<const std::byte*, Tensor> made;
  int64_t most = 0;
  for (const auto& [param, w] : ListParams(kept)) {
    if (!placement_.IsSplit(*param)) continue;
    Tensor& tensor = made[w->value.view().raw()];
    if (tensor.empty()) {
      Tensor& memory = param->layer < 0 ? root_memory_ : layer_memory_;
      const View whole(memory.mutable_view().raw() + offsets.at(w->value.view().raw()), w->value.dtype(),
                       ShapeOf(placement_.sharding().Computed(*param), param->shape));
      tensor = Tensor::Sharing(memory.owner(), whole);
      layers_[param->layer].push_back({param, whole, w->value.mutable_view()});
    }
    whole_[*param].value = tensor;
  }
  for (const auto& [layer, list] : layers_) {
    int64_t bytes = 0;
    for (const SplitTensor& tensor : list) bytes += Aligned(tensor.part.NumBytes());
    most = std::max(most, bytes * comm_.size());
  }
  if (use_ == Use::kScatter) received_ = Memory(most);
}

int64_t SplitLayers::NumBytes() const { return root_memory_.NumBytes() + layer_memory_.NumBytes() + received_.NumBytes(); }

View SplitLayers::RowsOf(const SplitTensor& tensor, int r) const {
  const int64_t first = placement_.sharding().Computed(*tensor.spec).row_begin;
  const Region rows = placement_.sharding().RowsOf(*tensor.spec, r);
  return tensor.whole.Rows(rows.row_begin - first, rows.row_end - first);
}

void SplitLayers::Gather(const std::vector<SplitTensor>& list) const {
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
  comm_.Exchange(out, in);
}

// Sums in the order of the ranks.
void SplitLayers::Scatter(const std::vector<SplitTensor>& list) {
  std::vector<Outgoing> out;
  std::vector<Incoming> in;
  std::vector<View> pieces;
  std::byte* at = received_.mutable_view().raw();
  for (const SplitTensor& tensor : list) {
    for (int r = 0; r < comm_.size(); ++r) {
      const View rows = RowsOf(tensor, r);
      if (r == comm_.rank()) {
        pieces.push_back(rows);
        continue;
      }
      pieces.emplace_back(at, DType::kF32, tensor.part.shape());
      at += Aligned(tensor.part.NumBytes());
      out.push_back({r, BytesOf(ConstView(rows))});
      in.push_back({r, BytesOf(pieces.back())});
    }
  }
  comm_.Exchange(out, in);
  const auto n = static_cast<size_t>(comm_.size());
  for (size_t i = 0; i < list.size(); ++i) {
    for (size_t r = 1; r < n; ++r) AddScaled(1, pieces[i * n + r], pieces[i * n]);
    AddScaled(1, pieces[i * n], list[i].part);
  }
}

void SplitLayers::Begin(int64_t layer) {
  const auto found = layers_.find(layer);
  if (found == layers_.end()) return;
  if (use_ == Use::kGather) return Gather(found->second);
  for (const SplitTensor& tensor : found->second) Fill(0, tensor.whole);
}

void SplitLayers::End(int64_t layer) {
  const auto found = layers_.find(layer);
  if (use_ == Use::kScatter && found != layers_.end()) Scatter(found->second);
}

}  // namespace fathom

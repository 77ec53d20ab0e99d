#include "fathom/train/gradient_sums.h"

#include <algorithm>

#include "fathom/base/trace.h"
#include "fathom/model/adapters.h"

namespace fathom {
namespace {

int64_t ElementsOf(const std::vector<View>& list) {
  int64_t elements = 0;
  for (const View& view : list) elements += view.NumElements();
  return elements;
}

}  // namespace

GradientSums::GradientSums(const Placement& placement, DecoderParams& grads, DataShares& shares, Courier& courier)
    : mesh_(placement.sharding().mesh()), shares_(shares), beside_(mesh_.comm(Axis::kData), Channel::kLayers, courier) {
  for (const auto& [param, w] : ListParams(grads)) {
    const View kept = w->value.mutable_view();
    const int64_t first = placement.Kept(*param).row_begin;
    const Region rows = placement.Updated(*param);
    Add(param->layer, placement.SummedOver(*param), kept,
        placement.SharesMoments(*param) ? kept.Rows(rows.row_begin - first, rows.row_end - first) : View());
  }
  for (const auto& [param, adapter] : ListAdapters(grads)) {
    Add(param->layer, placement.sharding().SummedOver(*param, Factor::kA), adapter->a.mutable_view(), View());
    Add(param->layer, placement.sharding().SummedOver(*param, Factor::kB), adapter->b.mutable_view(), View());
  }
}

// What ranks along data share is summed there first (shares_), but for the embedding's and head's over stages, and then only in the rows
// that this rank updates.
void GradientSums::Add(int64_t layer, const std::vector<Axis>& axes, View gradient, View shared) {
  if (!seen_.insert(gradient.raw()).second) return;
  for (const Axis axis : axes) {
    const bool data = axis == Axis::kData;
    if (data && !shared.empty()) {
      gradient = shared;
    } else if (data && layer >= 0 && Overlaps(mesh_)) {
      layers_[layer].push_back(gradient);
    } else {
      lists_[static_cast<size_t>(axis)].push_back(gradient);
    }
  }
}

void GradientSums::End(int64_t layer) {
  const auto found = layers_.find(layer);
  if (!last_pass_ || found == layers_.end()) return;
  FATHOM_CHECK(begun_.insert(layer).second, "layer {} ends twice in a pass", layer);
  beside_.Begin([&list = found->second](const Comm& data) { data.AllSum(list); });
}

void GradientSums::Sum() {
  const TraceSlice slice("sums over ranks");
  for (const Axis axis : kAxes) {
    const Comm& comm = mesh_.comm(axis);
    if (axis == Axis::kData) {
      for (const auto& [layer, list] : layers_) {
        if (last_pass_ && begun_.contains(layer)) continue;
        beside_.Begin([&views = list](const Comm& data) { data.AllSum(views); });
      }
      shares_.SumGradients();
    }
    comm.AllSum(lists_[static_cast<size_t>(axis)]);
    if (axis == Axis::kData) beside_.AwaitAll();
  }
  begun_.clear();
  last_pass_ = false;
}

int64_t GradientSums::NumBytes() const {
  int64_t bytes = 0, most = 0;
  for (const std::vector<View>& list : lists_) bytes += Comm::SumBytes(ElementsOf(list));
  for (const auto& [layer, list] : layers_) most = std::max(most, Comm::SumBytes(ElementsOf(list)));
  return bytes + most;
}

}  // namespace fathom

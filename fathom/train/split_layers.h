// Parameters and gradients of which ranks along fsdp keep some rows each: whole only while their layer runs, in memory that layers share.
// While one runs, a thread of its own gathers the layer that came next in the last pass, or sums the gradients of the one before.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <vector>

#include "fathom/model/params.h"
#include "fathom/parallel/beside.h"
#include "fathom/train/placement.h"

namespace fathom {

// One that is split: its whole, and the rows of it that this rank keeps.
struct SplitTensor {
  const ParamSpec* spec;
  View whole, part;
};

class SplitLayers final : public LayerStore {
 public:
  enum class Use {
    kGather,   // parameters: Begin gathers them from the ranks
    kScatter,  // gradients: Begin makes them zero, End adds the sum over the ranks to the kept rows, of all layers by the end of the root's
  };
  // kept: what ranks keep; outlives this, as do placement and courier. What shares memory there shares it in whole(), too.
  SplitLayers(const Placement& placement, DecoderParams& kept, Use use, Courier& courier);

  // kept's tensors where they are not split, whole ones in their place where they are, and this as their store.
  DecoderParams whole() const { return whole_; }
  // Of the shared memory and what is received.
  int64_t NumBytes() const;
  // Layer -1, the root: embedding, head and final norm, which stay whole between Begin and End, around all other layers'.
  void Begin(int64_t layer) override;
  void End(int64_t layer) override;

 private:
  struct Layer {
    std::vector<SplitTensor> tensors;
    size_t memory = 0;  // layers that follow each other lie in different ones
  };
  void Lay(DecoderParams& kept);
  View RowsOf(const SplitTensor& tensor, int r) const;
  bool IsHeld(int64_t layer) const;
  void BeginGathered(int64_t layer);
  void PlanGathered(int64_t layer);
  void Gather(const Comm& comm, const std::vector<SplitTensor>& list) const;
  void GatherNext(int64_t layer);
  void Forget();
  void Post(int64_t layer);
  void Await();
  void Exchange(const Comm& comm, const std::vector<SplitTensor>& list);
  void Collect();
  void Add(const std::vector<SplitTensor>& list);
  void EndSummed(int64_t layer);

  const Placement& placement_;
  const Comm& comm_;  // its traffic is that of both
  Beside beside_;
  Use use_;
  DecoderParams whole_;
  std::map<int64_t, Layer> layers_;
  std::vector<Tensor> memory_;  // the root's, and two in which layers take turns
  static constexpr std::array<int64_t, 3> kNone = {-2, -2, -2};
  std::array<int64_t, 3> held_ = kNone;  // parameters: the layer in each memory
  Tensor received_;
  std::vector<View> pieces_;           // of the layer that is being summed, by tensor and rank
  std::optional<int64_t> errand_;      // the layer of the one that has not been waited for
  std::vector<int64_t> order_, last_;  // layers as they began in this pass, and in the one before
};

}  // namespace fathom

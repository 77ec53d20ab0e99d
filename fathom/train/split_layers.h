// Parameters and gradients of which ranks along fsdp keep some rows each: whole only while their layer runs, in memory that layers share.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "fathom/model/params.h"
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
    kScatter,  // gradients: Begin makes them zero, End adds the sum over the ranks to the kept rows
  };
  // kept: what ranks keep; outlives this, as does placement. What shares memory there shares it in whole(), too.
  SplitLayers(const Placement& placement, DecoderParams& kept, Use use);

  // kept's tensors where they are not split, whole ones in their place where they are, and this as their store.
  DecoderParams whole() const { return whole_; }
  // Of the shared memory and what is received.
  int64_t NumBytes() const;
  // Layer -1: embedding, head and final norm, which stay whole between Begin and End.
  void Begin(int64_t layer) override;
  void End(int64_t layer) override;

 private:
  void Lay(DecoderParams& kept);
  View RowsOf(const SplitTensor& tensor, int r) const;
  void Gather(const std::vector<SplitTensor>& list) const;
  void Scatter(const std::vector<SplitTensor>& list);

  const Placement& placement_;
  const Comm& comm_;
  Use use_;
  DecoderParams whole_;
  std::map<int64_t, std::vector<SplitTensor>> layers_;
  Tensor root_memory_, layer_memory_, received_;
};

}  // namespace fathom

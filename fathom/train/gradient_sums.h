// Gradients that several ranks have terms of, summed over each axis along which their parameters are copies.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "fathom/parallel/beside.h"
#include "fathom/train/data_shares.h"
#include "fathom/train/placement.h"

namespace fathom {

// As the store of gradients that ranks along data copy whole, it has a layer summed over data as soon as the step's last pass has its
// gradients, while those of the layers before are computed. Sums are the same bits either way.
class GradientSums final : public LayerStore {
 public:
  // Of grads; shares: those of them that it sums. Both, as placement and courier, outlive this.
  GradientSums(const Placement& placement, DecoderParams& grads, DataShares& shares, Courier& courier);

  // Whether it does so: each layer has to end once in a pass, with its own gradients.
  static bool Overlaps(const Mesh& mesh) {
    return mesh.size(Axis::kData) > 1 && mesh.size(Axis::kFsdp) == 1 && mesh.size(Axis::kStage) == 1;
  }
  // The pass that begins is the last before Sum.
  void BeginLastPass() { last_pass_ = true; }
  void Begin(int64_t /*layer*/) override {}
  void End(int64_t layer) override;
  // What is left to sum, and waits for the rest.
  void Sum();
  // What sums take.
  int64_t NumBytes() const;

 private:
  using Lists = std::array<std::vector<View>, kAxes.size()>;
  void Add(int64_t layer, const std::vector<Axis>& axes, View gradient, View shared);

  const Mesh& mesh_;
  DataShares& shares_;
  Beside beside_;                                // along data
  Lists lists_;                                  // of each axis
  std::map<int64_t, std::vector<View>> layers_;  // what is summed along data layer by layer
  std::set<int64_t> begun_;                      // of them, since BeginLastPass
  std::set<const std::byte*> seen_;
  bool last_pass_ = false;
};

}  // namespace fathom

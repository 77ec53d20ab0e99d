// A matrix of which ranks along fsdp and tensor keep parts, made whole for Muon, whose step needs all of it.
#pragma once

#include <memory>

#include "fathom/optim/muon.h"
#include "fathom/train/placement.h"

namespace fathom {

class SplitMatrix final : public MatrixRanks {
 public:
  // Null if this rank keeps all of it.
  static std::shared_ptr<const SplitMatrix> Of(const Placement& placement, const ParamSpec& param);

  Shape whole() const override { return shape_; }
  void Gather(ConstView part, View x, Arena& scratch) const override;
  View OwnPart(View x) const override { return PartOf(x, kept_); }

 private:
  SplitMatrix(const Placement& placement, const ParamSpec& param);
  void GatherRows(ConstView part, View rows) const;
  void GatherColumns(ConstView own, View x, Arena& scratch) const;

  Comm fsdp_, tensor_;
  Shape shape_;
  Region kept_;
  std::vector<Region> rows_;  // of each rank along fsdp, within what its rank along tensor computes with
  std::vector<Region> cuts_;  // of each rank along tensor; one if it is not cut
};

}  // namespace fathom

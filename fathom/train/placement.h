// What a rank of a run keeps of each parameter: the part that its place in the mesh gives it, divided further if it is trained.
#pragma once

#include "fathom/model/sharding.h"
#include "fathom/train/treatment.h"

namespace fathom {

class Placement {
 public:
  // spec: outlives this. Throws Error(kUsage) as Treatments does.
  Placement(const ModelSpec& spec, const ModelConfig& config, const TrainOptions& options)
      : sharding_(config, options.mesh), treatments_(spec, options) {}

  const Sharding& sharding() const { return sharding_; }
  const Treatments& treatments() const { return treatments_; }
  // Is it whole only while its layer runs?
  bool IsSplit(const ParamSpec& param) const { return sharding_.IsSplit(param) && treatments_.Of(param) == Treatment::kTrained; }
  Region Kept(const ParamSpec& param) const { return IsSplit(param) ? sharding_.Kept(param) : sharding_.Computed(param); }
  bool IsFirst(const ParamSpec& param) const { return sharding_.IsFirst(param, IsSplit(param)); }
  std::vector<Axis> SummedOver(const ParamSpec& param) const { return sharding_.SummedOver(param, IsSplit(param)); }

 private:
  Sharding sharding_;
  Treatments treatments_;
};

}  // namespace fathom

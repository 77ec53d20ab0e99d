// What a rank of a run keeps of each parameter: the part that its place in the mesh gives it, divided further if it is trained.
#pragma once

#include "fathom/model/sharding.h"
#include "fathom/train/treatment.h"

namespace fathom {

class Placement {
 public:
  // spec: outlives this. Throws Error(kUsage) as Treatments does.
  Placement(const ModelSpec& spec, const ModelConfig& config, const TrainOptions& options)
      : sharding_(config, options.mesh),
        treatments_(spec, options),
        share_moments_(options.share_moments && options.mesh.size(Axis::kData) > 1) {}

  const Sharding& sharding() const { return sharding_; }
  const Treatments& treatments() const { return treatments_; }
  // Is it whole only while its layer runs?
  bool IsSplit(const ParamSpec& param) const { return sharding_.IsSplit(param) && treatments_.Of(param) == Treatment::kTrained; }
  Region Kept(const ParamSpec& param) const { return IsSplit(param) ? sharding_.Kept(param) : sharding_.Computed(param); }
  bool IsFirst(const ParamSpec& param) const { return sharding_.IsFirst(param, IsSplit(param)); }
  // Have ranks along data the moments of some of its rows each, which they update?
  bool SharesMoments(const ParamSpec& param) const {
    return share_moments_ && treatments_.Of(param) == Treatment::kTrained && param.shape.rank() == 2 &&
           Kept(param).rows() >= sharding_.mesh().size(Axis::kData);
  }
  // The rows that rank r along data updates; this rank.
  Region UpdatedBy(const ParamSpec& param, int r) const {
    Region region = Kept(param);
    if (!SharesMoments(param)) return region;
    const int64_t n = sharding_.mesh().size(Axis::kData), rows = region.rows(), first = region.row_begin;
    region.row_begin = first + rows * r / n;
    region.row_end = first + rows * (r + 1) / n;
    return region;
  }
  Region Updated(const ParamSpec& param) const { return UpdatedBy(param, sharding_.mesh().rank(Axis::kData)); }
  // Is this rank the first of those that update the same rows?
  bool IsFirstToUpdate(const ParamSpec& param) const { return sharding_.IsFirst(param, IsSplit(param), !SharesMoments(param)); }
  std::vector<Axis> SummedOver(const ParamSpec& param) const { return sharding_.SummedOver(param, IsSplit(param)); }

 private:
  Sharding sharding_;
  Treatments treatments_;
  bool share_moments_;
};

}  // namespace fathom

#include "fathom/model/sharding.h"

#include "fathom/layers/groups.h"

namespace fathom {

Region WholeOf(const Shape& shape) { return {0, shape[0], 0, shape.rank() == 2 ? shape[1] : 1}; }

Shape ShapeOf(const Region& region, const Shape& whole) {
  if (whole.rank() == 2) return {region.rows(), region.columns()};
  return {region.rows()};
}

Sharding::Sharding(const ModelConfig& config, const Mesh& mesh) : config_(config), mesh_(mesh) {}

int64_t Sharding::LayerOf(int64_t stage) const { return FirstLayer(config_.num_hidden_layers, stage, mesh_.size(Axis::kStage)); }

bool Sharding::Holds(const ParamSpec& param) const {
  if (mesh_.world().size() == 1) return true;
  const int64_t stages = mesh_.size(Axis::kStage);
  if (param.is_mtp() && mesh_.rank(Axis::kStage) != stages - 1) return false;
  if (param.layer >= 0 && !param.is_mtp() && (param.layer < first_layer() || param.layer >= last_layer())) return false;
  const int64_t each = param.is_expert() ? config_.n_routed_experts / mesh_.size(Axis::kExpert) : 1;
  return !param.is_expert() || param.expert / each == mesh_.rank(Axis::kExpert);
}

Region Sharding::Computed(const ParamSpec& param) const { return ComputedBy(param, mesh_.rank(Axis::kTensor)); }

Region Sharding::ComputedBy(const ParamSpec& param, int64_t r) const {
  Region whole = WholeOf(param.shape);
  if (!Holds(param)) return {0, 0, whole.column_begin, whole.column_end};
  const int64_t n = mesh_.size(Axis::kTensor);
  const TensorCut cut = CutOf(param.role);
  if (cut == TensorCut::kRows) return {whole.row_end * r / n, whole.row_end * (r + 1) / n, 0, whole.column_end};
  if (cut == TensorCut::kColumns) return {0, whole.row_end, whole.column_end * r / n, whole.column_end * (r + 1) / n};
  return whole;
}

bool Sharding::IsSplit(const ParamSpec& param) const {
  const int64_t n = mesh_.size(Axis::kFsdp);
  return n > 1 && param.shape.rank() == 2 && param.shape[0] / mesh_.size(Axis::kTensor) >= n;
}

Region Sharding::RowsOf(const ParamSpec& param, int r) const {
  Region region = Computed(param);
  if (!IsSplit(param) || region.rows() == 0) return region;
  const int64_t n = mesh_.size(Axis::kFsdp), rows = region.rows(), first = region.row_begin;
  region.row_begin = first + rows * r / n;
  region.row_end = first + rows * (r + 1) / n;
  return region;
}

namespace {

// Do the ranks along the axis hold the same part of it?
bool IsCopied(Axis axis, const ParamSpec& param, bool split) {
  switch (axis) {
    case Axis::kStage:
      return param.layer < 0;
    case Axis::kFsdp:
      return !split;
    case Axis::kExpert:
      return !param.is_expert();
    case Axis::kTensor:
      return CutOf(param.role) == TensorCut::kNone;
    case Axis::kData:
    case Axis::kContext:
      break;
  }
  return true;
}

}  // namespace

bool Sharding::IsFirst(const ParamSpec& param, bool split, bool copied) const {
  for (const Axis axis : kAxes) {
    if (axis == Axis::kData && !copied) continue;
    if (IsCopied(axis, param, split) && mesh_.rank(axis) > 0) return false;
  }
  return Holds(param);
}

std::vector<Axis> Sharding::SummedOver(const ParamSpec& param, bool split) const {
  std::vector<Axis> axes;
  for (const Axis axis : kAxes) {
    if (axis != Axis::kTensor && mesh_.size(axis) > 1 && IsCopied(axis, param, split)) axes.push_back(axis);
  }
  return axes;
}

Region Sharding::Computed(const ParamSpec& param, Factor factor, int64_t rank) const {
  const Region matrix = Computed(param);
  if (factor == Factor::kA) return {0, rank, matrix.column_begin, matrix.column_end};
  return {matrix.row_begin, matrix.row_end, 0, rank};
}

namespace {
bool IsCut(const ParamSpec& param, Factor factor) {
  return CutOf(param.role) == (factor == Factor::kA ? TensorCut::kColumns : TensorCut::kRows);
}
}  // namespace

bool Sharding::IsFirst(const ParamSpec& param, Factor factor) const {
  for (const Axis axis : kAxes) {
    const bool copied = axis == Axis::kTensor ? !IsCut(param, factor) : IsCopied(axis, param, false);
    if (copied && mesh_.rank(axis) > 0) return false;
  }
  return Holds(param);
}

// Beside a matrix that is cut, the factor that is not has a part of its gradient on every rank.
std::vector<Axis> Sharding::SummedOver(const ParamSpec& param, Factor factor) const {
  std::vector<Axis> axes = SummedOver(param, false);
  if (mesh_.size(Axis::kTensor) > 1 && CutOf(param.role) != TensorCut::kNone && !IsCut(param, factor)) axes.push_back(Axis::kTensor);
  return axes;
}

ModelConfig Sharding::LocalConfig() const {
  ModelConfig local = config_;
  const int64_t n = mesh_.size(Axis::kTensor);
  local.num_attention_heads /= n;
  local.intermediate_size /= n;
  local.moe_intermediate_size /= n;
  return local;
}

}  // namespace fathom

#include "fathom/train/split_matrix.h"

#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {

SplitMatrix::SplitMatrix(const Placement& placement, const ParamSpec& param) : shape_(param.shape), kept_(placement.Kept(param)) {
  const Sharding& sharding = placement.sharding();
  const Mesh& mesh = sharding.mesh();
  const bool cut = CutOf(param.role) != TensorCut::kNone;
  if (placement.IsSplit(param)) fsdp_ = mesh.comm(Axis::kFsdp);
  if (cut) tensor_ = mesh.comm(Axis::kTensor);
  for (int r = 0; r < tensor_.size(); ++r) cuts_.push_back(cut ? sharding.ComputedBy(param, r) : WholeOf(shape_));
  const Region own = cuts_[static_cast<size_t>(tensor_.rank())];
  for (int r = 0; r < fsdp_.size(); ++r) {
    const Region rows = fsdp_.size() > 1 ? sharding.RowsOf(param, r) : own;
    rows_.push_back({rows.row_begin - own.row_begin, rows.row_end - own.row_begin, 0, own.columns()});
  }
}

std::shared_ptr<const SplitMatrix> SplitMatrix::Of(const Placement& placement, const ParamSpec& param) {
  if (param.shape.rank() != 2 || placement.Kept(param) == WholeOf(param.shape)) return nullptr;
  return std::shared_ptr<const SplitMatrix>(new SplitMatrix(placement, param));
}

// Those of all ranks along fsdp.
void SplitMatrix::GatherRows(ConstView part, View rows) const {
  if (fsdp_.size() == 1) return Cast(part, rows);
  std::vector<std::span<std::byte>> parts;
  for (const Region& r : rows_) parts.push_back(BytesOf(rows.Rows(r.row_begin, r.row_end)));
  fsdp_.AllGather(BytesOf(part), parts);
}

// own: those of this rank along tensor.
void SplitMatrix::GatherColumns(ConstView own, View x, Arena& scratch) const {
  ArenaScope scope(scratch);
  std::vector<View> columns;
  std::vector<std::span<std::byte>> parts;
  for (const Region& cut : cuts_) {
    columns.push_back(scratch.Alloc(DType::kF32, {cut.rows(), cut.columns()}));
    parts.push_back(BytesOf(columns.back()));
  }
  tensor_.AllGather(BytesOf(own), parts);
  for (size_t r = 0; r < cuts_.size(); ++r) Cast(columns[r], PartOf(x, cuts_[r]));
}

void SplitMatrix::Gather(ConstView part, View x, Arena& scratch) const {
  if (tensor_.size() == 1) return GatherRows(part, x);
  ArenaScope scope(scratch);
  const Region& cut = cuts_[static_cast<size_t>(tensor_.rank())];
  const bool by_rows = cut.columns() == shape_[1];
  const View own = by_rows ? x.Rows(cut.row_begin, cut.row_end) : scratch.Alloc(DType::kF32, {cut.rows(), cut.columns()});
  GatherRows(part, own);
  if (!by_rows) return GatherColumns(own, x, scratch);
  std::vector<std::span<std::byte>> parts;
  for (const Region& r : cuts_) parts.push_back(BytesOf(x.Rows(r.row_begin, r.row_end)));
  tensor_.AllGather(BytesOf(own), parts);
}

}  // namespace fathom

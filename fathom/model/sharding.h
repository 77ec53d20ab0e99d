// Which part of each parameter a rank has: what follows from its role (spec/param_role.h) and from the rank's place in the mesh.
#pragma once

#include <array>
#include <vector>

#include "fathom/base/function_ref.h"
#include "fathom/config/model_config.h"
#include "fathom/parallel/mesh.h"
#include "fathom/spec/model_spec.h"

namespace fathom {

// A rectangle of a matrix [N,K]; of a vector [n] rows alone, columns are 0..1.
struct Region {
  int64_t row_begin = 0, row_end = 0, column_begin = 0, column_end = 0;
  int64_t rows() const { return row_end - row_begin; }
  int64_t columns() const { return column_end - column_begin; }
  friend bool operator==(const Region&, const Region&) = default;
};
Region WholeOf(const Shape& shape);
// The part of a parameter that is wanted; empty: all of each.
using RegionOf = FunctionRef<Region(const ParamSpec&)>;
// The shape of a region of a parameter with that shape.
Shape ShapeOf(const Region& region, const Shape& whole);
// The region of a view of the whole.
template <class V>
V PartOf(const V& whole, const Region& region) {
  const V rows = whole.Rows(region.row_begin, region.row_end);
  return whole.rank() == 2 ? rows.Cols(region.column_begin, region.column_end) : rows;
}

// Of an adapter beside a matrix [N,K]: A [r,K], B [N,r].
enum class Factor { kA, kB };
inline constexpr std::array kFactors = {Factor::kA, Factor::kB};

class Sharding {
 public:
  Sharding() = default;  // one rank: all of it
  Sharding(const ModelConfig& config, const Mesh& mesh);

  // What the layers of this rank multiply with; no rows: none of it, another rank's expert or layer.
  Region Computed(const ParamSpec& param) const;
  // The same of rank r along tensor.
  Region ComputedBy(const ParamSpec& param, int64_t r) const;
  // Matrices are divided by rows among the ranks along fsdp where they are trained.
  bool IsSplit(const ParamSpec& param) const;
  Region Kept(const ParamSpec& param) const { return RowsOf(param, mesh_.rank(Axis::kFsdp)); }
  // The rows that rank r along fsdp keeps of what is computed with.
  Region RowsOf(const ParamSpec& param, int r) const;
  bool Holds(const ParamSpec& param) const;
  // Is this rank the first of those that hold the same part? split: of what it keeps, else of what it computes with. Ranks along data hold
  // other parts unless they are `copied` there.
  bool IsFirst(const ParamSpec& param, bool split, bool copied = true) const;
  // The axes along which ranks hold the same part and see other tokens: over which its gradient is summed.
  std::vector<Axis> SummedOver(const ParamSpec& param, bool split) const;

  // The same of an adapter of that rank: it is cut as its matrix is, and fsdp divides none.
  Region Computed(const ParamSpec& param, Factor factor, int64_t rank) const;
  bool IsFirst(const ParamSpec& param, Factor factor) const;
  std::vector<Axis> SummedOver(const ParamSpec& param, Factor factor) const;

  // Main layers [first, last) of this rank's stage.
  int64_t first_layer() const { return LayerOf(mesh_.rank(Axis::kStage)); }
  int64_t last_layer() const { return LayerOf(mesh_.rank(Axis::kStage) + 1); }
  // The model as this rank's layers see it: its heads and widths.
  ModelConfig LocalConfig() const;
  const Mesh& mesh() const { return mesh_; }

 private:
  int64_t LayerOf(int64_t stage) const;  // the first of that stage

  ModelConfig config_;
  Mesh mesh_;
};

}  // namespace fathom

// MaxText's parameters and Hugging Face's: names, and how the elements of one lie in the other.
//
// A MaxText array holds one hub tensor, or one per layer (scanned checkpoints stack a group of layers along axis 1), per expert, or both.
// Matrices are the hub's transposed: [in, out] for [out, in], with `in` or `out` split into heads for attention. The router bias stacks its
// layers along axis 0 (MaxText 0.2.5). Source: goldens/maxtext, spec 8.4.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fathom/spec/model_spec.h"
#include "fathom/tensor/shape.h"

namespace fathom {

struct MaxTextArray {
  std::string name;                  // below "params.params.": "decoder.moe_layers.self_attention.wq_a.kernel"
  std::vector<std::string> tensors;  // the hub tensors it holds, tensors[expert * layers + layer]
  int64_t experts = 1, layers = 1;
  int expert_axis = -1, layer_axis = -1;   // -1: no such axis
  std::vector<int64_t> columns, rows;      // the other axes: columns of the hub matrix first, then its rows. A vector has columns only
  bool transposed = true;                  // false: rows first (the embedding)
  ParamRole role = ParamRole::kEmbedding;  // of all its tensors

  Shape shape() const;
  int64_t Columns() const;  // of each hub tensor, as a matrix [rows, columns]; a vector is one row
  int64_t Rows() const;
  // Rows that one step along the first row axis stands for.
  int64_t RowUnit() const;
  // The axis of rows[0], -1 for a vector.
  int RowAxis() const;
  // The axis of columns[0].
  int ColumnAxis() const;
};

// Every array of such a model, in the order in which the hub's tensors stand. Shared copies of an MTP module (its embedding and head) are
// in none. Throws Error(kInput): a model that MaxText has no layout for (expert layers that alternate with dense ones).
std::vector<MaxTextArray> MaxTextArrays(const ModelConfig& config, bool scanned);

// "decoder.moe_layers.x" and "decoder.dense_layers.x" are of a scanned checkpoint, "decoder.moe_layers_0.x" of another.
bool IsScannedName(const std::string& name);

}  // namespace fathom

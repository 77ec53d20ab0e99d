// Parts of matrices, converted into scratch and back, for the products of gemm.
#pragma once

#include <cstdint>

#include "fathom/tensor/view.h"

namespace fathom {

struct PanelRange {
  int64_t row, rows, column, columns;
};

// to [rows, columns] F32, contiguous = that part of a matrix of any weight's dtype, scales applied; rounded to BF16 if asked.
void WidenPanel(const WeightView& from, PanelRange part, bool round_to_bf16, float* to);

// The same transposed: to [columns, rows] F32, contiguous.
void TransposePanel(const WeightView& from, PanelRange part, bool round_to_bf16, float* to);

// to [rows, columns] BF16, contiguous = the same part, rounded to nearest even.
void NarrowPanel(const WeightView& from, PanelRange part, BF16* to);

// That part of c (F32 or BF16) = (or +=, rounded once) from [rows, columns] F32, contiguous.
void StorePanel(const float* from, PanelRange part, bool add, View c);

}  // namespace fathom

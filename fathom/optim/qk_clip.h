// QK-clip (Kimi K2, 2025: MuonClip): attention scores that grew beyond a threshold are brought back by scaling the head's projections.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/kernels/elementwise/rounding.h"
#include "fathom/tensor/view.h"

namespace fathom {

// Rows from first_row on of a matrix [H*(nope+other),K], F32 or BF16, contiguous: each head's nope part, which meets its counterpart in the
// scores, and other rows.
struct ClippedMatrix {
  View w, bf16_copy;  // the copy, unless empty, gets the new values
  int64_t first_row;
  int64_t nope, other;
  bool scales_other;  // queries: the rotated part, whose key all heads share, carries the whole factor; values are left alone
};

// With S the head's largest score of the step and g = min(1, threshold / (S + 1e-6)), 1 unless S > 0: nope rows times sqrt(g), other rows
// times g if they are scaled. max_logits [H]. Rounding by chance draws by head and element of it, wherever the rows are cut. Returns by how
// much the rows' sum of squares grew (it is not positive).
double ClipHeads(std::span<const float> max_logits, double threshold, const ClippedMatrix& matrix, const Rounding& rounding);

}  // namespace fathom

// Matrix products over weights as stored. The only door to oneDNN, and to our own kernel for few rows.
//
// Precision: F32 activations give an f32 product, whatever the weight's dtype (BF16, F16 and block FP8 weights are converted
// panel by panel, in cache: value = code * scale, unrounded). BF16 activations give a bf16 product: a weight that is not BF16 is
// rounded to BF16, products are summed in f32. Outputs F32 or BF16 (rounded once). Row strides are free, columns contiguous.
// The bits do not depend on the number of threads. With few rows (M <= 8 or so) weights are read once, straight from memory.
#pragma once

#include <cstdint>
#include <span>

#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

enum class Write { kOverwrite, kAdd };

// kByRow: every row of the result has the bits that it has alone, whatever other rows there are; every sum is taken in the order of the
// kernel for few rows (docs/numerics.md). kFastest: the order may depend on the number of rows.
enum class Arithmetic { kFastest, kByRow };

// y = x W^T.  x [M,K], w [N,K], y [M,N].  The forward of a linear layer.
void MatMulNT(ConstView x, const WeightView& w, View y, Write write, Arena& scratch, Arithmetic arithmetic = Arithmetic::kFastest);

// dx = dy W.  dy [M,N], w [N,K], dx [M,K].  Its gradient towards the input.
void MatMulNN(ConstView dy, const WeightView& w, View dx, Write write, Arena& scratch);

// dw = dy^T x.  dy [M,N], x [M,K], dw [N,K] F32.  Its gradient towards the weight. dy and x have the same dtype.
void MatMulTN(ConstView dy, ConstView x, View dw, Write write, Arena& scratch);

// One product per expert on contiguous rows: rows begin[e]..begin[e+1] of x and y belong to w[e]; begin has E+1 entries,
// begin[0] = 0, empty groups allowed; an empty dw[e] is not wanted. With few rows per expert the threads split over experts, with many over
// rows.
void GroupedMatMulNT(ConstView x, std::span<const int64_t> begin, std::span<const WeightView> w, View y, Write write, Arena& scratch,
                     Arithmetic arithmetic = Arithmetic::kFastest);
void GroupedMatMulNN(ConstView dy, std::span<const int64_t> begin, std::span<const WeightView> w, View dx, Write write, Arena& scratch);
void GroupedMatMulTN(ConstView dy, ConstView x, std::span<const int64_t> begin, std::span<const View> dw, Write write, Arena& scratch);

// Bytes of scratch that any of the calls above takes at most for these sizes (weights of E experts count once: one panel).
int64_t GemmScratchBytes(int64_t rows, int64_t n, int64_t k);

}  // namespace fathom

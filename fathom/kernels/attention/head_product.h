// The per-head products that carry queries into the latent space and outputs out of it (DeepSeek-V2 report, section 2.1.2, absorbed form).
#pragma once

#include <cstdint>

#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

// The rows [first, first + rows) of each head of a weight w [H*C,K] (kv_b_proj: C = Dn+Dv, K = R; F32, BF16, F16 or block FP8).
struct HeadWeights {
  int64_t heads;
  WeightView w;
  int64_t first, rows;
};
// y_h = x_h W_h for every head, W_h its rows: x [M,H*A], y [M,H*B] F32, overwritten. kToLatent (A = rows, B = K): y = x W; kFromLatent
// (A = K, B = rows): y = x W^T. Each row of w is read once; a row of y has the bits that it has alone. Products and sums are F32.
enum class HeadProduct { kToLatent, kFromLatent };
void PerHeadMatMul(HeadProduct kind, const HeadWeights& weight, ConstView x, View y, Arena& scratch);

}  // namespace fathom

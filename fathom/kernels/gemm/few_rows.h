// Products with few rows, as in decoding: bound by the reading of the weights, which are read once, straight from where they lie.
#pragma once

#include <cstdint>

#include "fathom/base/function_ref.h"
#include "fathom/kernels/gemm/gemm.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

// y [M,N] (=|+=) x [M,K] w [N,K]^T; x and y F32 or BF16, w F32, F16, BF16 or block FP8. Every row of y has the bits that it has alone,
// so any M will do, but from some M on there are faster products. Weights that are not read as they lie (F16, and F32 with BF16 x) are
// converted some rows at a time, rounded to BF16 where x is. Products and sums are F32
// (with BF16 x and native BF16: products of BF16 pairs, sums F32, values below 2^-126 count as zero). FP8 values are code * scale,
// never rounded; a NaN code gives NaN.
struct FewRowsProduct {
  ConstView x;
  WeightView w;
  View y;
  Write write;
};

// Where the products of many rows become faster, as measured with bench/few_rows_bench: F32 weights need no conversion and get there first.
inline constexpr int64_t kFewRows = 16, kFewRowsF32 = 8;

// Whether this is a product for few rows. BF16 x with F32 weights is not: those would have to be rounded.
bool IsFewRows(const ConstView& x, const WeightView& w);

// product(e) for e in [0, count), any without rows: the weight rows of all are split evenly over the threads.
void RunFewRows(int64_t count, FunctionRef<FewRowsProduct(int64_t)> product, Arena& scratch);

// Scratch for products with weights up to [n,k], at most kMostProducts of them.
int64_t FewRowsScratchBytes(int64_t threads, int64_t n, int64_t k);

}  // namespace fathom

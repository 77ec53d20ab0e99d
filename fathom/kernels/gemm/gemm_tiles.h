// Products cut into tiles: how gemm spreads work over threads and keeps the bits independent of their number.
#pragma once

#include <cstdint>

#include "fathom/base/function_ref.h"
#include "fathom/kernels/gemm/gemm.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

// c [m,n] (=|+=) a b, where a is [m,k] (transposed: [k,m]) and b is [k,n] (transposed: [n,k]). a is F32 or BF16 and says which product
// it is: F32, or BF16 with b rounded to BF16. Rows of matrices that hold tokens (all of a's, and b's where a is transposed) come in any
// number without compiling new code for each.
struct Product {
  int64_t m, n, k;
  WeightView a;
  bool a_transposed;
  WeightView b;
  bool b_transposed;
  View c;
  Write write;
  int64_t rows_behind = 0;  // of a, behind its last: may be read, but count for nothing
};

// product(e) for e in [0, count): their tiles go to the threads together.
void RunProducts(int64_t count, FunctionRef<Product(int64_t)> product, Arena& scratch);

// Scratch for up to kMostProducts at once.
inline constexpr int64_t kMostProducts = 4096;
int64_t ProductScratchBytes(int64_t threads);

}  // namespace fathom

// What kernels over rows share outside their SIMD part: checks, grain, and sums over rows.
//
// Sums over rows whose order does not depend on the number of threads: the rows are cut into chunks by their number alone, each
// chunk is summed by one thread, the partial sums are added in the order of the chunks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fathom/base/threads.h"
#include "fathom/tensor/arena.h"
#include "fathom/tensor/view.h"

namespace fathom {

// Kernels check their arguments at the edge with these two.
inline bool IsRowType(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }
inline bool IsMatrix(const ConstView& v, int64_t rows, int64_t columns) {
  return v.rank() == 2 && v.dim(0) == rows && v.dim(1) == columns && IsRowType(v.dtype());
}
inline bool IsVector(const ConstView& v, int64_t n) { return v.NumElements() == n && v.contiguous() && IsRowType(v.dtype()); }
inline bool IsF32Vector(const ConstView& v, int64_t n) { return IsVector(v, n) && v.dtype() == DType::kF32; }

// Rows of d elements that make a range worth a thread's start.
inline int64_t RowGrain(int64_t d) { return std::max<int64_t>(1, 8192 / std::max<int64_t>(d, 1)); }
// Elements of an array, likewise.
inline constexpr int64_t kElementGrain = 16384;

inline constexpr int64_t kMaxChunks = 64;
inline int64_t ChunkRows(int64_t rows, int64_t least) { return std::max(least, (rows + kMaxChunks - 1) / kMaxChunks); }

// work(begin, end, partial) handles rows [begin, end) and adds their sum to partial[0..width); sum[0..width) += the partial sums.
// sum == nullptr: partial is nullptr too, only the rows' other results are wanted.
template <class F>
void SumOverRows(int64_t rows, int64_t width, float* sum, Arena& scratch, const F& work) {
  if (sum == nullptr) {
    ParallelRanges(rows, RowGrain(width), [&](int64_t begin, int64_t end) { work(begin, end, static_cast<float*>(nullptr)); });
    return;
  }
  const int64_t chunk = ChunkRows(rows, 16), chunks = (rows + chunk - 1) / chunk;
  const ArenaScope scope(scratch);
  float* partials = scratch.AllocArray<float>(chunks * width);
  ParallelRanges(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      float* partial = partials + c * width;
      std::memset(partial, 0, static_cast<size_t>(width) * sizeof(float));
      work(c * chunk, std::min(rows, (c + 1) * chunk), partial);
    }
  });
  ParallelRanges(width, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t c = 0; c < chunks; ++c) {
      for (int64_t i = begin; i < end; ++i) sum[i] += partials[c * width + i];
    }
  });
}

}  // namespace fathom

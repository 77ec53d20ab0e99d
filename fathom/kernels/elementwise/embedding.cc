#include "fathom/kernels/elementwise/embedding.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/elementwise/embedding.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// out[t] = table[ids[t]], converted to F32.
void EmbeddingForwardRows(const ConstView& table, const int32_t* ids, const View& out) {
  for (int64_t t = 0; t < out.dim(0); ++t) {
    const InRow in = RowAt(table, ids[t]);
    float* row = out.row<float>(t);
    ForVectors(out.dim(1), [&](auto at) { Store(at, Load(at, in), row); });
  }
}

// Columns [begin, end) of dtable[ids[t]] += dout[t], tokens in order.
void EmbeddingBackwardColumns(const ConstView& dout, const int32_t* ids, const View& dtable, int64_t begin, int64_t end) {
  for (int64_t t = 0; t < dout.dim(0); ++t) {
    const float* grad = dout.row<float>(t) + begin;
    float* row = dtable.row<float>(ids[t]) + begin;
    ForVectors(end - begin, [&](auto at) { Store(at, hn::Add(Load(at, row), Load(at, grad)), row); });
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(EmbeddingForwardRows);
HWY_EXPORT(EmbeddingBackwardColumns);

namespace {

void CheckIds(std::span<const int32_t> ids, int64_t vocabulary) {
  for (const int32_t id : ids) FATHOM_CHECK(0 <= id && id < vocabulary, "token id {} of {}", id, vocabulary);
}

}  // namespace

void EmbeddingForward(ConstView table, std::span<const int32_t> ids, View out) {
  FATHOM_CHECK(table.rank() == 2 && (IsRowType(table.dtype()) || table.dtype() == DType::kF16), "table {}", table.shape().ToString());
  FATHOM_CHECK(IsMatrix(out, std::ssize(ids), table.dim(1)), "table {}, {} ids, out {}", table.shape().ToString(), ids.size(),
               out.shape().ToString());
  CheckIds(ids, table.dim(0));
  ParallelRanges(out.dim(0), RowGrain(out.dim(1)), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(EmbeddingForwardRows)(table, ids.data() + begin, out.Rows(begin, end));
  });
}

void EmbeddingBackward(ConstView dout, std::span<const int32_t> ids, View dtable) {
  FATHOM_CHECK(dtable.rank() == 2 && IsMatrix(dout, std::ssize(ids), dtable.dim(1)), "dout {}, {} ids, dtable {}", dout.shape().ToString(),
               ids.size(), dtable.shape().ToString());
  CheckIds(ids, dtable.dim(0));
  // Threads split the columns in cache lines, so each element's sum runs over the tokens in order.
  constexpr int64_t kLine = 16;
  const int64_t d = dtable.dim(1);
  ParallelRanges((d + kLine - 1) / kLine, 2, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(EmbeddingBackwardColumns)(dout, ids.data(), dtable, begin * kLine, std::min(d, end * kLine));
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

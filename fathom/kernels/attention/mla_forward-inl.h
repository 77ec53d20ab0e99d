// The expanded form's forward over any list of keys. Once per SIMD target.
#if defined(FATHOM_KERNELS_MLA_FORWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_MLA_FORWARD_INL_H_
#undef FATHOM_KERNELS_MLA_FORWARD_INL_H_
#else
#define FATHOM_KERNELS_MLA_FORWARD_INL_H_
#endif

#include <cmath>

#include "fathom/kernels/attention/mla_attention_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// A query that saw no key gets zeros.
inline void StoreOutput(const MlaForwardArgs& a, int64_t head, int64_t q0, int64_t rows, const ForwardScratch& w) {
  for (int64_t i = 0; i < rows; ++i) {
    StoreRow(w.o + i * PadBlock(a.shape.v_dim), w.sum[i] == 0 ? 0 : 1 / w.sum[i], a.shape.v_dim, RowAt(a.o, q0 + i, head * a.shape.v_dim));
    if (!a.lse.empty()) a.lse.row<float>(q0 + i)[head] = w.top[i] * kLn2 + std::log(w.sum[i]);
    if (!a.top.empty()) a.top.row<float>(q0 + i)[head] = w.top[i] * kLn2;
  }
}

// One block of queries (the chunk's rows from i on) against one block of keys: o, top and sum move on.
template <class Path, class Sight>
void AttendBlock(const Path& path, const MlaForwardArgs& a, const Sight& sight, int64_t i, const ForwardScratch& w) {
  const int64_t width = a.width(), v_wide = PadBlock(a.shape.v_dim);
  ScoreBlock<Path>(sight, width, ConstBlock(w.keys, RowStride<Path>(width)), w.queries_t + i * RowStride<Path>(width), w.scores);
  SoftmaxColumns(w.scores, sight, a.shape.scale * kLog2E, {w.top + i, w.sum + i, w.factor});
  const BlockLeft p = path.ByQuery(w.scores, sight, w.p);
  SumOverKeys<Path>(sight, a.shape.v_dim, p, ConstBlock(w.values_sum, v_wide), {w.o + i * v_wide, v_wide}, Into::kScaleAdd, w.factor);
}

// Queries [q0, q1) of one head: all keys of a list (count(), Row(i)), block by block. list.WithSight(i, rows, first, n, f) calls f with
// what queries q0 + i .. q0 + i + rows see of entries [first, first + n), if they see any.
template <class Path, class Keys>
void ForwardChunk(const Path& path, const MlaForwardArgs& a, const Keys& list, int64_t head, int64_t q0, int64_t q1,
                  const ForwardScratch& w) {
  const MlaShape& s = a.shape;
  const int64_t width = a.width(), rows = q1 - q0, v_wide = PadBlock(s.v_dim);
  const Block queries{w.rows, RowStride<Path>(width)}, keys{w.keys, RowStride<Path>(width)};
  const Block values{Path::kStep == 1 ? w.values_sum : w.values, RowStride<Path>(s.v_dim)};
  for (int64_t i = 0; i < rows; i += kQueryBlock) {
    const int64_t n = std::min(kQueryBlock, rows - i);
    LoadRows<Path>(a.q, q0 + i, n, head * width, width, PadBlock(n), queries);
    TransposeBlock(queries, PadBlock(n), queries.stride, w.queries_t + i * queries.stride);
  }
  std::fill(w.o, w.o + rows * v_wide, 0.0f);
  std::fill(w.sum, w.sum + kQueryChunk, 0.0f);
  std::fill(w.top, w.top + kQueryChunk, -std::numeric_limits<float>::infinity());
  for (int64_t first = 0; first < list.count(); first += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, list.count() - first);
    LoadKeys<Path>(a, head, list, first, n, keys);
    LoadValues<Path>(a, head, list, first, n, values);
    Path::Interleave(values, n, s.v_dim, {w.values_sum, v_wide});
    for (int64_t i = 0; i < rows; i += kQueryBlock) {
      list.WithSight(i, std::min(kQueryBlock, rows - i), first, n, [&](const auto& sight) { AttendBlock(path, a, sight, i, w); });
    }
  }
  StoreOutput(a, head, q0, rows, w);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

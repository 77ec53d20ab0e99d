// The expanded form's backward on blocks of queries and of keys. Once per SIMD target.
#if defined(FATHOM_KERNELS_MLA_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_MLA_BACKWARD_INL_H_
#undef FATHOM_KERNELS_MLA_BACKWARD_INL_H_
#else
#define FATHOM_KERNELS_MLA_BACKWARD_INL_H_
#endif

#include "fathom/kernels/attention/mla_attention_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// D_i = rowsum(dO_i * O_i), the part of the softmax's derivative that all of a row's scores share.
inline float OutputDot(const MlaBackwardArgs& a, int64_t t, int64_t head) {
  const InRow d_o = RowAt(a.d_o, t, head * a.shape.v_dim), o = RowAt(a.o, t, head * a.shape.v_dim);
  return static_cast<float>(RowSum(a.shape.v_dim, [&](auto at, VF sum) { return hn::MulAdd(Load(at, d_o), Load(at, o), sum); }));
}

// Of one block of queries (rows from i on) and one block of keys: p in w.scores, the gradient of the scores in w.d_scores.
template <class Path, class Sight>
void ScoreGradients(const MlaBackwardArgs& a, const Sight& sight, int64_t i, const BackwardScratch& w) {
  const MlaShape& s = a.shape;
  const int64_t width = a.width();
  ScoreBlock<Path>(sight, width, ConstBlock(w.keys, RowStride<Path>(width)), w.queries_t + i * RowStride<Path>(width), w.scores);
  ScoreBlock<Path>(sight, s.v_dim, ConstBlock(w.values, RowStride<Path>(s.v_dim)), w.d_o_t + i * RowStride<Path>(s.v_dim), w.d_scores);
  SoftmaxGradient(w.scores, w.d_scores, sight, s.scale, w.lse + i, w.dot + i);
}

// What follows for the keys' d_keys and d_values, and for the queries' dq: they are added to.
template <class Path, class Sight>
void AddToKeys(const Path& path, const MlaBackwardArgs& a, const Sight& sight, int64_t i, const BackwardScratch& w) {
  const MlaShape& s = a.shape;
  const int64_t width = a.width(), wide = PadBlock(width), v_wide = PadBlock(s.v_dim), step = i / Path::kStep;
  SumOverQueries<Path>(sight, s.v_dim, path.ByKey(w.scores, sight, w.p), ConstBlock(w.d_o_sum + step * v_wide, v_wide),
                       {w.d_values, v_wide});
  SumOverQueries<Path>(sight, width, path.ByKey(w.d_scores, sight, w.p), ConstBlock(w.queries_sum + step * wide, wide), {w.d_keys, wide});
}
template <class Path, class Sight>
void AddToQueries(const Path& path, const MlaBackwardArgs& a, const Sight& sight, int64_t i, const BackwardScratch& w) {
  const int64_t width = a.width(), wide = PadBlock(width);
  SumOverKeys<Path>(sight, width, path.ByQuery(w.d_scores, sight, w.ds), ConstBlock(w.keys_sum, wide), {w.dq + i * wide, wide}, Into::kAdd);
}

// All of it.
template <class Path, class Sight>
void BackwardBlock(const Path& path, const MlaBackwardArgs& a, const Sight& sight, int64_t i, const BackwardScratch& w) {
  ScoreGradients<Path>(a, sight, i, w);
  AddToKeys(path, a, sight, i, w);
  AddToQueries(path, a, sight, i, w);
}

// Rows [begin, end) of queries or d_o of a head, transposed for the scores and as right factors for the sums over queries.
template <class Path>
void PackRows(const ConstView& from, int64_t begin, int64_t end, int64_t column, int64_t columns, float* rows, float* transposed,
              float* summed) {
  const int64_t length = end - begin, stride = RowStride<Path>(columns), wide = PadBlock(columns);
  for (int64_t i = 0; i < length; i += kQueryBlock) {
    const Block sum{summed + i / Path::kStep * wide, wide}, natural{Path::kStep == 1 ? sum.data : rows, stride};
    const int64_t n = std::min(kQueryBlock, length - i);
    LoadRows<Path>(from, begin + i, n, column, columns, PadBlock(n), natural);
    TransposeBlock(natural, PadBlock(n), stride, transposed + i * stride);
    Path::Interleave(natural, PadBlock(n), columns, sum);
  }
}

// Everything of queries [begin, end) of a head that every block of keys meets: queries, d_o, lse and dot; zeros in dq.
template <class Path>
void PackQueries(const MlaBackwardArgs& a, int64_t begin, int64_t end, int64_t head, const BackwardScratch& w) {
  const MlaShape& s = a.shape;
  const int64_t width = a.width(), length = end - begin;
  PackRows<Path>(a.q, begin, end, head * width, width, w.rows, w.queries_t, w.queries_sum);
  PackRows<Path>(a.d_o, begin, end, head * s.v_dim, s.v_dim, w.rows, w.d_o_t, w.d_o_sum);
  std::fill(w.dq, w.dq + length * PadBlock(width), 0.0f);
  for (int64_t i = 0; i < length; ++i) {
    PrefetchRow(a.o, begin + i + kRowsAhead, head * s.v_dim, s.v_dim);
    w.dot[i] = OutputDot(a, begin + i, head);
    w.lse[i] = a.lse.row<float>(begin + i)[head] * kLog2E;
  }
}

// A block of keys and values of a list, and zeros for their gradients. Where the keys as right factors stand is set in w.
template <class Path, class Keys>
void PackKeys(const MlaBackwardArgs& a, int64_t head, const Keys& list, int64_t first, int64_t n, BackwardScratch& w) {
  const MlaShape& s = a.shape;
  const int64_t width = a.width(), wide = PadBlock(width);
  const Block keys{w.keys, RowStride<Path>(width)};
  LoadKeys<Path>(a, head, list, first, n, keys);
  if constexpr (Path::kStep == 1) w.keys_sum = w.keys;
  Path::Interleave(keys, kKeyBlock, width, {w.keys_sum, wide});
  LoadValues<Path>(a, head, list, first, n, {w.values, RowStride<Path>(s.v_dim)});
  std::fill(w.d_keys, w.d_keys + kKeyBlock * wide, 0.0f);
  std::fill(w.d_values, w.d_values + kKeyBlock * PadBlock(s.v_dim), 0.0f);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

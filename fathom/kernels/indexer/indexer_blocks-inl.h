// What the kernels of the lightning indexer share. Once per SIMD target.
#if defined(FATHOM_KERNELS_INDEXER_BLOCKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_INDEXER_BLOCKS_INL_H_
#undef FATHOM_KERNELS_INDEXER_BLOCKS_INL_H_
#else
#define FATHOM_KERNELS_INDEXER_BLOCKS_INL_H_
#endif

#include "fathom/kernels/attention/attention_blocks-inl.h"
#include "fathom/kernels/indexer/indexer.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Heads of query t as rows [PadBlock(Hi)][Dh], zeros behind them.
template <class Path>
void LoadHeads(const ConstView& q, int64_t t, const IndexerShape& s, Block rows) {
  for (int64_t h = 0; h < s.heads; ++h) {
    CopyRow(RowAt(q, t, h * s.head_dim), s.head_dim, ElementRow<Path>(rows, h));
    ZeroTail<Path>(rows, h, s.head_dim);
  }
  std::fill(rows.data + s.heads * rows.stride, rows.data + PadBlock(s.heads) * rows.stride, 0.0f);
}

// queries_t [Steps(Dh)][PadBlock(Hi)] of query t; rows is scratch.
template <class Path>
void LoadHeadsTransposed(const ConstView& q, int64_t t, const IndexerShape& s, Block rows, float* queries_t) {
  LoadHeads<Path>(q, t, s, rows);
  TransposeBlock(rows, PadBlock(s.heads), rows.stride, queries_t);
}

// dots [n][PadBlock(Hi)] = keys queries, heads are the lanes; keys [n][Dh].
template <class Path>
void HeadDots(const IndexerShape& s, ConstBlock keys, int64_t n, const float* queries_t, float* dots) {
  const int64_t wide = PadBlock(s.heads);
  Path::Product({n, s.heads, Steps<Path>(s.head_dim)}, {keys.data, keys.stride, 1}, ConstBlock(queries_t, wide), {dots, wide},
                Into::kOverwrite);
}

// scores[j] = sum_h weights[h] max(0, dots[j][h]), NaN where a dot is: Max may drop it. weights are padded with zeros.
inline void SumHeads(const float* dots, int64_t n, int64_t heads, const float* weights, float* scores) {
  const DF d;
  for (int64_t j = 0; j < n; ++j, dots += PadBlock(heads)) {
    VF sum = hn::Zero(d);
    for (int64_t h = 0; h < heads; h += LanesF()) {
      const VF dot = LoadF(dots + h);
      sum = hn::MulAdd(LoadF(weights + h), hn::IfThenZeroElse(hn::Lt(dot, hn::Zero(d)), dot), sum);
    }
    scores[j] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

inline void LoadWeights(const ConstView& weights, int64_t t, float* to) {
  const int64_t heads = weights.dim(1);
  std::copy_n(weights.row<float>(t), heads, to);
  std::fill(to + heads, to + PadBlock(heads), 0.0f);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

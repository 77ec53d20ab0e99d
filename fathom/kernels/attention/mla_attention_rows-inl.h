// Rows of queries, keys and values of one head, packed for products. Once per SIMD target.
#if defined(FATHOM_KERNELS_MLA_ATTENTION_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_MLA_ATTENTION_ROWS_INL_H_
#undef FATHOM_KERNELS_MLA_ATTENTION_ROWS_INL_H_
#else
#define FATHOM_KERNELS_MLA_ATTENTION_ROWS_INL_H_
#endif

#include "fathom/kernels/attention/attention_blocks-inl.h"
#include "fathom/kernels/attention/mla_attention_plan.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// The nope and the rope part of keys [first, first + n) of a head, side by side.
template <class Path>
void LoadKeys(const MlaAttentionArgs& a, int64_t head, int64_t first, int64_t n, Block to) {
  const MlaShape& s = a.shape;
  for (int64_t j = 0; j < n; ++j) {
    PrefetchRow(a.kv, first + j + kRowsAhead, head * (s.nope_dim + s.v_dim), s.nope_dim);
    auto* key = ElementRow<Path>(to, j);
    CopyRow(RowAt(a.kv, first + j, head * (s.nope_dim + s.v_dim)), s.nope_dim, key);
    CopyRow(RowAt(a.k_rope, first + j), s.rope_dim, key + s.nope_dim);
    ZeroTail<Path>(to, j, a.width());
  }
  std::fill(to.data + n * to.stride, to.data + kKeyBlock * to.stride, 0.0f);
}

template <class Path>
void LoadValues(const MlaAttentionArgs& a, int64_t head, int64_t first, int64_t n, Block to) {
  const MlaShape& s = a.shape;
  LoadRows<Path>(a.kv, first, n, head * (s.nope_dim + s.v_dim) + s.nope_dim, s.v_dim, kKeyBlock, to);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

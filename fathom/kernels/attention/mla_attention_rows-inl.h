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

// Entries [first, first + n) of a list of keys (count(), Row(i)): the nope and the rope part of a head, side by side.
template <class Path, class Keys>
void LoadKeys(const MlaAttentionArgs& a, int64_t head, const Keys& list, int64_t first, int64_t n, Block to) {
  const MlaShape& s = a.shape;
  const int64_t column = head * (s.nope_dim + s.v_dim);
  for (int64_t j = 0; j < n; ++j) {
    if (first + j + kRowsAhead < list.count()) PrefetchRow(a.kv, list.Row(first + j + kRowsAhead), column, s.nope_dim);
    auto* key = ElementRow<Path>(to, j);
    CopyRow(RowAt(a.kv, list.Row(first + j), column), s.nope_dim, key);
    CopyRow(RowAt(a.k_rope, list.Row(first + j)), s.rope_dim, key + s.nope_dim);
    ZeroTail<Path>(to, j, a.width());
  }
  std::fill(to.data + n * to.stride, to.data + kKeyBlock * to.stride, 0.0f);
}

template <class Path, class Keys>
void LoadValues(const MlaAttentionArgs& a, int64_t head, const Keys& list, int64_t first, int64_t n, Block to) {
  const MlaShape& s = a.shape;
  const int64_t column = head * (s.nope_dim + s.v_dim) + s.nope_dim;
  for (int64_t j = 0; j < n; ++j) {
    if (first + j + kRowsAhead < list.count()) PrefetchRow(a.kv, list.Row(first + j + kRowsAhead), column, s.v_dim);
    CopyRow(RowAt(a.kv, list.Row(first + j), column), s.v_dim, ElementRow<Path>(to, j));
    ZeroTail<Path>(to, j, s.v_dim);
  }
  std::fill(to.data + n * to.stride, to.data + kKeyBlock * to.stride, 0.0f);
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

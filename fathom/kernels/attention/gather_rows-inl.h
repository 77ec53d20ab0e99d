// Keys of one head, read in place, row by row, for one query at a time. Once per SIMD target.
#if defined(FATHOM_KERNELS_GATHER_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_GATHER_ROWS_INL_H_
#undef FATHOM_KERNELS_GATHER_ROWS_INL_H_
#else
#define FATHOM_KERNELS_GATHER_ROWS_INL_H_
#endif

#include <span>

#include "fathom/kernels/attention/attention_blocks-inl.h"
#include "fathom/kernels/attention/mla_attention.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Rows of one head's keys, as stored.
template <class E>
struct HeadRows {
  ConstView kv, k_rope;
  MlaShape shape;
  int64_t head;
  const E* Nope(int64_t row) const { return kv.row<E>(row) + head * (shape.nope_dim + shape.v_dim); }
  const E* Rope(int64_t row) const { return k_rope.row<E>(row); }
  void Prefetch(std::span<const int32_t> rows, size_t i) const {
    if (i >= rows.size()) return;
    PrefetchRow(kv, rows[i], head * (shape.nope_dim + shape.v_dim), shape.nope_dim + shape.v_dim);
  }
};

template <class E>
HWY_INLINE VF Dot(const E* row, const float* x, int64_t n, VF sum) {
  ForVectors(n, [&](auto at) { sum = hn::MulAdd(at.Load(row), at.Load(x), sum); });
  return sum;
}
HWY_INLINE float LanesSum(VF v) { return hn::GetLane(hn::SumOfLanes(DF(), v)); }

// s[j] = q . key of rows[j].
template <class E>
void GatherScores(const HeadRows<E>& rows, std::span<const int32_t> list, const float* q, float* s) {
  const VF zero = hn::Zero(DF());
  for (size_t j = 0; j < list.size(); ++j) {
    rows.Prefetch(list, j + kRowsAhead);
    const VF nope = Dot(rows.Nope(list[j]), q, rows.shape.nope_dim, zero);
    s[j] = LanesSum(hn::Add(nope, Dot(rows.Rope(list[j]), q + rows.shape.nope_dim, rows.shape.rope_dim, zero)));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

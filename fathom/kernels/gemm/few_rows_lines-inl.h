// Where few_rows takes its lines of weights from: rows as they lie, or whole lines of the cache. Included once per SIMD target.
#if defined(FATHOM_KERNELS_FEW_ROWS_LINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_FEW_ROWS_LINES_INL_H_
#undef FATHOM_KERNELS_FEW_ROWS_LINES_INL_H_
#else
#define FATHOM_KERNELS_FEW_ROWS_LINES_INL_H_
#endif

#include "fathom/kernels/gemm/few_rows_weights-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Rows of weights that are read side by side: stream r begins at row `begin` + r * `stretch` and goes on row by row.
struct Streams {
  int64_t begin, stretch;
};

// Lines of kR streams, asked for in order.
template <class W, int kR>
struct StoredLines {
  const typename W::T* row[kR];
  HWY_INLINE StoredLines(const WeightView& w, const Streams& streams) {
    for (int r = 0; r < kR; ++r)
      row[r] = reinterpret_cast<const typename W::T*>(w.value.raw()) + (streams.begin + r * streams.stretch) * w.value.stride();
  }
  // Lines at the end of the last rows that have to be read as they lie.
  static constexpr int64_t kLast = 0;
  HWY_INLINE void NextRow(int64_t stride) {
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) row[r] += stride;
  }
  HWY_INLINE typename W::Parts Line(int r, int64_t at) { return W::Unpack(row[r] + at); }
};

#if HWY_TARGET == HWY_AVX3_DL
// The same where rows do not begin with a line of the cache: whole lines are loaded and two of them joined, since a load from two lines
// takes twice as long (weights of a checkpoint lie behind a header of any length). What lies before and behind the streams is not read.
template <class W, int kR>
struct JoinedLines : StoredLines<W, kR> {
  static constexpr int64_t kLast = 1;
  int64_t words;
  __m512i before[kR], order;
  HWY_INLINE JoinedLines(const WeightView& w, const Streams& streams) : StoredLines<W, kR>(w, streams) {
    words = static_cast<int64_t>(reinterpret_cast<uintptr_t>(this->row[0]) % 64 / 8);
    order = _mm512_add_epi64(_mm512_set1_epi64(words), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    const auto own = static_cast<__mmask8>(0xff << words);
    for (int r = 0; r < kR; ++r) before[r] = _mm512_maskz_loadu_epi64(own, AlignedLine(r, 0));
  }
  // Rows of whole lines without gaps, a whole number of 8 bytes behind the begin of a line.
  static bool Fits(const WeightView& w) {
    const auto begin = reinterpret_cast<uintptr_t>(w.value.raw());
    return begin % 8 == 0 && w.value.dim(1) % W::kLine == 0 && w.value.stride() == w.value.dim(1);
  }
  // The line in which element `at` lies.
  HWY_INLINE const std::byte* AlignedLine(int r, int64_t at) const {
    return reinterpret_cast<const std::byte*>(this->row[r] + at) - words * 8;
  }
  HWY_INLINE typename W::Parts Line(int r, int64_t at) {
    const __m512i line = _mm512_load_si512(AlignedLine(r, at + W::kLine));
    const __m512i joined = _mm512_permutex2var_epi64(before[r], order, line);
    before[r] = line;
    return W::UnpackLine(joined);
  }
};
#endif

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

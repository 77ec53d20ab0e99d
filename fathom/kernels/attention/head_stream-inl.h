// One row of x times a head's weights while they come from memory, line by line. Included once per SIMD target.
#if defined(FATHOM_KERNELS_HEAD_STREAM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_HEAD_STREAM_INL_H_
#undef FATHOM_KERNELS_HEAD_STREAM_INL_H_
#else
#define FATHOM_KERNELS_HEAD_STREAM_INL_H_
#endif

#include "fathom/kernels/gemm/few_rows_lines-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

// Rows of a head's weights, and its x and y.
struct HeadRows {
  const WeightView& w;
  int64_t first, count;
  const float* x;
  float* y;
};

#if HWY_TARGET == HWY_AVX3_DL

// Lines of weights as vectors of F32 in the order of the columns.
struct ColumnsBF16 {
  using T = uint16_t;
  static constexpr int64_t kLine = 32;
  using Parts = LineF32<2>;
  static HWY_INLINE VF Widen(__m256i half) { return VF{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))}; }
  static HWY_INLINE Parts UnpackLine(__m512i line) {
    return {{Widen(_mm512_castsi512_si256(line)), Widen(_mm512_extracti64x4_epi64(line, 1))}};
  }
  static HWY_INLINE Parts Unpack(const T* w) { return UnpackLine(_mm512_loadu_si512(w)); }
  // There are no scales.
  struct Scale {
    HWY_INLINE Scale(const WeightView&, int64_t, int64_t) {}
    HWY_INLINE VF Of(VF value) const { return value; }
  };
};

struct ColumnsFP8 {
  using T = uint8_t;
  static constexpr int64_t kLine = 64;
  using Parts = LineF32<4>;
  static HWY_INLINE Parts UnpackLine(__m512i line) {
    const DecodedFP8 d = DecodeLine(_mm512_permutexvar_epi8(_mm512_load_si512(kRunsOfCodes.from), line));
    const hn::Vec<DU> low{d.low}, high{d.high};
    return {{EvenBF16(low), OddBF16(low), EvenBF16(high), OddBF16(high)}};
  }
  static HWY_INLINE Parts Unpack(const T* w) { return UnpackLine(_mm512_loadu_si512(w)); }
  struct Scale {
    VF factor;
    HWY_INLINE Scale(const WeightView& w, int64_t row, int64_t column)
        : factor(hn::Set(DF(), BlockScale(w.scale, row / kScaleBlock, column / kScaleBlock))) {}
    HWY_INLINE VF Of(VF value) const { return hn::Mul(value, factor); }
  };
};

// How far ahead memory is asked for: a head's part is short, and the hardware's own prefetch begins anew with each (Zen 5, one thread:
// BF16 22 to 25 GB/s without, 26 to 30 with). Past the end this asks for nothing that is touched.
constexpr uintptr_t kHeadPrefetchBytes = 4096;

// kR streams of rows: begin_row(i), f(stream, column, values) for the vectors in the order of the columns, end_row(i), for row i of each.
template <class W, int kR, class Begin, class F, class End>
HWY_INLINE void ForHeadRows(const HeadRows& a, const Begin& begin_row, const F& f, const End& end_row) {
  const int64_t k = a.w.value.dim(1), stretch = a.count / kR;
  JoinedLines<W, kR> lines(a.w, {a.first, stretch});
  StoredLines<W, kR>& as_they_lie = lines;
  for (int64_t i = 0; i < stretch; ++i, lines.NextRow(k)) {
    begin_row(i);
    for (int64_t at = 0; at < k; at += W::kLine) {
      const bool stored = i + 1 == stretch && at + W::kLine == k;
#pragma GCC unroll 4
      for (int r = 0; r < kR; ++r) {
        const typename W::Scale scale(a.w, a.first + r * stretch + i, at);
        __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(lines.row[r] + at) + kHeadPrefetchBytes));
        const typename W::Parts parts = stored ? as_they_lie.Line(r, at) : lines.Line(r, at);
#pragma GCC unroll 4
        for (int64_t v = 0; v < W::kLine / kLanes; ++v) f(r, at + v * kLanes, scale.Of(parts.v[v]));
      }
    }
    end_row(i);
  }
}

// y [K] += x [count] W, row by row.
template <class W>
void StreamToLatent(const HeadRows& a) {
  VF factor = hn::Zero(DF());
  ForHeadRows<W, 1>(
      a, [&](int64_t i) { factor = hn::Set(DF(), a.x[i]); },
      [&](int, int64_t at, VF w) { StoreF(hn::MulAdd(factor, w, LoadF(a.y + at)), a.y + at); }, [](int64_t) {});
}

// y [count] = W x [K]; a row's sum is taken in the order of its vectors. An even number of rows.
template <class W>
void StreamFromLatent(const HeadRows& a) {
  VF sum[2];
  ForHeadRows<W, 2>(
      a, [&](int64_t) { sum[0] = sum[1] = hn::Zero(DF()); },
      [&](int r, int64_t at, VF w) { sum[r] = hn::MulAdd(LoadF(a.x + at), w, sum[r]); },
      [&](int64_t i) {
        a.y[i] = hn::GetLane(hn::SumOfLanes(DF(), sum[0]));
        a.y[a.count / 2 + i] = hn::GetLane(hn::SumOfLanes(DF(), sum[1]));
      });
}

template <class W>
bool StreamHead(const HeadRows& a, bool to_latent) {
  if (!JoinedLines<W, 1>::Fits(a.w) || (!to_latent && a.count % 2 != 0)) return false;
  to_latent ? StreamToLatent<W>(a) : StreamFromLatent<W>(a);
  return true;
}
#endif

// One row of x times all of the rows, with the bits that it has among others; false where this target or these weights have no such way.
inline bool StreamHead(const HeadRows& a, bool to_latent) {
#if HWY_TARGET == HWY_AVX3_DL
  if (a.w.value.dtype() == DType::kBF16) return StreamHead<ColumnsBF16>(a, to_latent);
  if (a.w.value.dtype() == DType::kF8E4M3) return StreamHead<ColumnsFP8>(a, to_latent);
#endif
  (void)a, (void)to_latent;
  return false;
}

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

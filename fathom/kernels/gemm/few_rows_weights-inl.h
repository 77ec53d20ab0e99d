// How few_rows reads 64 bytes of weights of each type, and the order in which it wants x. Included once per SIMD target.
//
// A reader W has: T (what lies in memory), kLine (elements in 64 bytes), X and ArrangeLine (x as it is multiplied), Unpack (a line in
// kParts registers), MulAdd (a line times x, added to a vector of sums), kScaled (sums need the scale of their block, after Unbias).
#if defined(FATHOM_KERNELS_FEW_ROWS_WEIGHTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FATHOM_KERNELS_FEW_ROWS_WEIGHTS_INL_H_
#undef FATHOM_KERNELS_FEW_ROWS_WEIGHTS_INL_H_
#else
#define FATHOM_KERNELS_FEW_ROWS_WEIGHTS_INL_H_
#endif

#include "fathom/kernels/quant/fp8-inl.h"
#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {

inline constexpr int64_t kLanes = HWY_LANES(float);

// The n elements of x that belong to a line, zeros behind them, to `to` so that element source(p) lands at p.
template <int64_t kLine, class F>
HWY_INLINE void Arrange(const InRow& x, int64_t n, const F& source, float* to) {
  alignas(64) float line[kLine];
  if (n < kLine) std::memset(line, 0, sizeof(line));
  ForVectors(n, [&](auto at) { Store(at, Load(at, x), line); });
#pragma GCC unroll 64
  for (int64_t p = 0; p < kLine; ++p) to[p] = line[source(p)];
}

// Sum over the vectors of a line of part i times the i-th vector of x.
template <int kParts>
struct LineF32 {
  VF v[kParts];
  HWY_INLINE VF MulAdd(const float* x, VF sum) const {
#pragma GCC unroll 64
    for (int i = 0; i < kParts; ++i) sum = hn::MulAdd(v[i], hn::LoadU(DF(), x + i * kLanes), sum);
    return sum;
  }
};

struct WeightsF32 {
  using T = float;
  using X = float;
  static constexpr int64_t kLine = 16;
  static constexpr bool kScaled = false;
  static constexpr int kParts = kLine / kLanes;
  using Parts = LineF32<kParts>;
  static void ArrangeLine(const InRow& x, int64_t n, X* to) {
    Arrange<kLine>(
        x, n, [](int64_t p) { return p; }, to);
  }
  static HWY_INLINE Parts Unpack(const T* w) {
    Parts parts;
#pragma GCC unroll 64
    for (int i = 0; i < kParts; ++i) parts.v[i] = LoadF(w + i * kLanes);
    return parts;
  }
#if HWY_TARGET == HWY_AVX3_DL
  static HWY_INLINE Parts UnpackLine(__m512i line) { return {{hn::BitCast(DF(), hn::Vec<DU>{line})}}; }
#endif
  static HWY_INLINE VF MulAdd(const Parts& w, const X* x, VF sum) { return w.MulAdd(x, sum); }
};

template <class D = DU>
HWY_INLINE hn::Vec<D> LoadPairs(const uint16_t* p) {
  if constexpr (kLanes == 1) {
    uint32_t pair;
    std::memcpy(&pair, p, sizeof(pair));
    return hn::Set(D(), pair);
  } else {
    return hn::BitCast(D(), hn::LoadU(hn::Repartition<uint16_t, D>(), p));
  }
}
struct WeightsBF16 {
  using T = uint16_t;
  using X = float;
  static constexpr int64_t kLine = 32;
  static constexpr bool kScaled = false;
  static constexpr int kParts = kLine / kLanes;
  using Parts = LineF32<kParts>;
  static void ArrangeLine(const InRow& x, int64_t n, X* to) {
    Arrange<kLine>(
        x, n, [](int64_t p) { return p / (2 * kLanes) * 2 * kLanes + p % kLanes * 2 + p / kLanes % 2; }, to);
  }
  static HWY_INLINE Parts Unpack(const T* w) {
    Parts parts;
#pragma GCC unroll 64
    for (int i = 0; i < kParts; i += 2) {
      const auto pairs = LoadPairs(w + i * kLanes);
      parts.v[i] = EvenBF16(pairs);
      parts.v[i + 1] = OddBF16(pairs);
    }
    return parts;
  }
#if HWY_TARGET == HWY_AVX3_DL
  static HWY_INLINE Parts UnpackLine(__m512i line) {
    const hn::Vec<DU> pairs{line};
    return {{EvenBF16(pairs), OddBF16(pairs)}};
  }
#endif
  static HWY_INLINE VF MulAdd(const Parts& w, const X* x, VF sum) { return w.MulAdd(x, sum); }
};

#if HWY_TARGET == HWY_AVX3_DL

struct WeightsFP8 {
  using T = uint8_t;
  using X = float;
  static constexpr int64_t kLine = 64;
  static constexpr bool kScaled = true;
  static constexpr int kParts = 4;
  using Parts = LineF32<kParts>;
  static HWY_INLINE VF Unbias(VF sum) { return sum; }
  static void ArrangeLine(const InRow& x, int64_t n, X* to) {
    Arrange<kLine>(
        x, n, [](int64_t p) { return p % 16 / 4 * 16 + p / 32 * 8 + p % 4 * 2 + p / 16 % 2; }, to);
  }
  static HWY_INLINE Parts Unpack(const T* w) { return UnpackLine(_mm512_loadu_si512(w)); }
  static HWY_INLINE Parts UnpackLine(__m512i line) {
    const DecodedFP8 d = DecodeLine(line);
    const hn::Vec<DU> low{d.low}, high{d.high};
    return {{EvenBF16(low), OddBF16(low), EvenBF16(high), OddBF16(high)}};
  }
  static HWY_INLINE VF MulAdd(const Parts& w, const X* x, VF sum) { return w.MulAdd(x, sum); }
};

// sum += even elements' products + odd elements' products. An instruction that no target of Highway here includes: the caller has asked
// the CPU.
HWY_INLINE VF AddPairProducts(__m512i w, const uint16_t* x, VF sum) {
  const __m512i right = _mm512_loadu_si512(x);
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(w), "v"(right));
  return sum;
}

struct PairsBF16 {
  using T = uint16_t;
  using X = uint16_t;
  static constexpr int64_t kLine = 32;
  static constexpr bool kScaled = false;
  static constexpr int kParts = 1;
  using Parts = __m512i;
  static void ArrangeLine(const InRow& x, int64_t n, X* to) {
    std::memset(to + n, 0, static_cast<size_t>(kLine - n) * sizeof(X));
    std::memcpy(to, x.data, static_cast<size_t>(n) * sizeof(X));
  }
  static HWY_INLINE Parts Unpack(const T* w) { return _mm512_loadu_si512(w); }
  static HWY_INLINE Parts UnpackLine(__m512i line) { return line; }
  static HWY_INLINE VF MulAdd(Parts w, const X* x, VF sum) { return AddPairProducts(w, x, sum); }
};

struct PairsFP8 {
  using T = uint8_t;
  using X = uint16_t;
  static constexpr int64_t kLine = 64;
  static constexpr bool kScaled = true;
  static constexpr int kParts = 2;
  using Parts = DecodedFP8;
  static HWY_INLINE VF Unbias(VF sum) { return sum; }
  static void ArrangeLine(const InRow& x, int64_t n, X* to) {
    X line[kLine] = {};
    std::memcpy(line, x.data, static_cast<size_t>(n) * sizeof(X));
    for (int64_t i = 0; i < kLine; i += 8) std::memcpy(to + i / 16 * 8 + i / 8 % 2 * 32, line + i, 8 * sizeof(X));
  }
  static HWY_INLINE Parts Unpack(const T* w) { return DecodeLine(_mm512_loadu_si512(w)); }
  static HWY_INLINE Parts UnpackLine(__m512i line) { return DecodeLine(line); }
  static HWY_INLINE VF MulAdd(const Parts& w, const X* x, VF sum) {
    return AddPairProducts(w.high, x + 32, AddPairProducts(w.low, x, sum));
  }
};

#else

// Where the CPU converts halves: a code's bits, moved into a half's exponent and mantissa, are its value times 2^-8, and the conversion
// takes subnormals at full speed.
struct WeightsFP8 {
  using T = uint8_t;
  using X = float;
  static constexpr int64_t kLine = 64;
  static constexpr bool kScaled = true;
  static constexpr bool kHalves = HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3;
  static constexpr int kParts = kLine / kLanes;
  using Parts = LineF32<kParts>;
  static HWY_INLINE VF Unbias(VF sum) { return kHalves ? hn::Mul(sum, hn::Set(DF(), 256.0f)) : sum; }
  static void ArrangeLine(const InRow& x, int64_t n, X* to) {
    Arrange<kLine>(
        x, n, [](int64_t p) { return p; }, to);
  }
  static HWY_INLINE VF Decode(const uint8_t* codes) {
    if constexpr (!kHalves) return LoadCodes(WholeVector{0}, codes);
    const hn::Rebind<uint8_t, DF> d8;
    const hn::Rebind<uint16_t, DF> d16;
    const hn::Rebind<hwy::float16_t, DF> half;
    const auto code = hn::PromoteTo(d16, hn::LoadU(d8, codes));
    const auto magnitude = hn::And(code, hn::Set(d16, 0x7f));
    const auto sign = hn::ShiftLeft<8>(hn::And(code, hn::Set(d16, 0x80)));
    const auto bits = hn::IfThenElse(hn::Eq(magnitude, hn::Set(d16, 0x7f)), hn::Set(d16, 0x7e00), hn::ShiftLeft<7>(magnitude));
    return hn::PromoteTo(DF(), hn::BitCast(half, hn::Or(bits, sign)));
  }
  static HWY_INLINE Parts Unpack(const T* w) {
    Parts parts;
#pragma GCC unroll 64
    for (int i = 0; i < kParts; ++i) parts.v[i] = Decode(w + i * kLanes);
    return parts;
  }
  static HWY_INLINE VF MulAdd(const Parts& w, const X* x, VF sum) { return w.MulAdd(x, sum); }
};

#endif

}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#endif

#include "fathom/kernels/attention/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/attention/rope.cc"
#include <hwy/foreach_target.h>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

// (a, b) -> (a c - b s, b c + a s).
HWY_INLINE void Turn(VF& a, VF& b, VF c, VF s) {
  const VF turned = hn::NegMulAdd(b, s, hn::Mul(a, c));
  b = hn::MulAdd(a, s, hn::Mul(b, c));
  a = turned;
}

HWY_INLINE void LoadPairs(const float* p, VF& a, VF& b) { hn::LoadInterleaved2(DF(), p, a, b); }
HWY_INLINE void StorePairs(VF a, VF b, float* p) { hn::StoreInterleaved2(a, b, DF(), p); }
// A pair of BF16 is one 32-bit word: the first in the lower half.
HWY_INLINE void LoadPairs(const BF16* p, VF& a, VF& b) {
  const DU du;
  const auto words = hn::LoadU(du, reinterpret_cast<const uint32_t*>(p));
  a = hn::BitCast(DF(), hn::ShiftLeft<16>(words));
  b = hn::BitCast(DF(), hn::And(words, hn::Set(du, 0xffff0000u)));
}
HWY_INLINE void StorePairs(VF a, VF b, BF16* p) {
  const DU du;
  const auto words = hn::Or(hn::ShiftRight<16>(RoundedBits(a)), hn::And(RoundedBits(b), hn::Set(du, 0xffff0000u)));
  hn::StoreU(words, du, reinterpret_cast<uint32_t*>(p));
}

template <class T>
void RotateInterleaved(T* x, int64_t half, float sign, const float* cos, const float* sin) {
  const int64_t lanes = LanesF();
  const VF s = hn::Set(DF(), sign);
  VF a, b;
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    LoadPairs(x + 2 * i, a, b);
    Turn(a, b, LoadF(cos + i), hn::Mul(s, LoadF(sin + i)));
    StorePairs(a, b, x + 2 * i);
  }
  if (i == half) return;
  alignas(64) T pairs[2 * kMaxLanes] = {};
  const size_t bytes = static_cast<size_t>(half - i) * 2 * sizeof(T);
  std::memcpy(pairs, x + 2 * i, bytes);
  LoadPairs(pairs, a, b);
  Turn(a, b, LoadN(cos + i, half - i), hn::Mul(s, LoadN(sin + i, half - i)));
  StorePairs(a, b, pairs);
  std::memcpy(x + 2 * i, pairs, bytes);
}

template <class T>
void RotateHalves(T* x, int64_t half, float sign, const float* cos, const float* sin) {
  const VF s = hn::Set(DF(), sign);
  ForVectors(half, [&](auto at) {
    VF a = at.Load(x), b = at.Load(x + half);
    Turn(a, b, at.Load(cos), hn::Mul(s, at.Load(sin)));
    at.Store(a, x);
    at.Store(b, x + half);
  });
}

template <class T>
void RotateRows(const View& x, const RopeColumns& columns, const RopeAngles& angles, RopePairs pairs, float sign) {
  const int64_t half = angles.cos.dim(1);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const int32_t position = angles.positions[static_cast<size_t>(t)];
    const float *c = angles.cos.row<float>(position), *s = angles.sin.row<float>(position);
    for (int64_t h = 0; h < columns.heads; ++h) {
      T* head = x.row<T>(t) + columns.offset + h * columns.head_stride;
      if (pairs == RopePairs::kInterleaved) {
        RotateInterleaved(head, half, sign, c, s);
      } else {
        RotateHalves(head, half, sign, c, s);
      }
    }
  }
}

// sign: of the sine, -1 turns back.
void RopeRows(const View& x, const RopeColumns& columns, const RopeAngles& angles, RopePairs pairs, float sign) {
  if (x.dtype() == DType::kF32) {
    RotateRows<float>(x, columns, angles, pairs, sign);
  } else {
    RotateRows<BF16>(x, columns, angles, pairs, sign);
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "fathom/kernels/simd/rows.h"

namespace fathom {
HWY_EXPORT(RopeRows);

void RopeRotate(View x, const RopeColumns& columns, const RopeAngles& angles, RopePairs pairs, RopeDirection direction) {
  const auto& [heads, head_stride, offset] = columns;
  const ConstView &cos = angles.cos, &sin = angles.sin;
  const std::span<const int32_t> positions = angles.positions;
  const int64_t rows = x.dim(0), d = 2 * cos.dim(1);
  FATHOM_CHECK(IsMatrix(x, rows, x.dim(1)) && offset + (heads - 1) * head_stride + d <= x.dim(1),
               "x {}, {} heads of {} columns apart, {} rotated from {}", x.shape().ToString(), heads, head_stride, d, offset);
  FATHOM_CHECK(IsMatrix(sin, cos.dim(0), cos.dim(1)) && std::ssize(positions) == rows, "cos {}, sin {}, {} positions",
               cos.shape().ToString(), sin.shape().ToString(), positions.size());
  for (const int32_t p : positions) FATHOM_CHECK(0 <= p && p < cos.dim(0), "position {} of a table of {}", p, cos.dim(0));
  const float sign = direction == RopeDirection::kForward ? 1.0f : -1.0f;
  ParallelRanges(rows, RowGrain(heads * d), [&](int64_t begin, int64_t end) {
    const auto part = positions.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    HWY_DYNAMIC_DISPATCH(RopeRows)(x.Rows(begin, end), columns, {cos, sin, part}, pairs, sign);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

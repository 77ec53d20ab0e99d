#include "fathom/kernels/elementwise/vector_ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "fathom/kernels/elementwise/vector_ops.cc"
#include <hwy/foreach_target.h>

#include <algorithm>

#include "fathom/kernels/simd/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fathom {
namespace HWY_NAMESPACE {
namespace {

void CastRows(const ConstView& x, const View& y) {
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow in = RowAt(x, t);
    const OutRow out = RowAt(y, t);
    ForVectors(x.dim(1), [&](auto at) { Store(at, Load(at, in), out); });
  }
}

void ScaleRange(float scale, float* y, int64_t n) {
  const VF s = hn::Set(DF(), scale);
  ForVectors(n, [=](auto at) { at.Store(hn::Mul(at.Load(y), s), y); });
}

void AddScaledRows(float scale, const ConstView& x, const View& y) {
  const VF s = hn::Set(DF(), scale);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow in = RowAt(x, t);
    float* out = y.row<float>(t);
    ForVectors(x.dim(1), [&](auto at) { at.Store(hn::MulAdd(s, Load(at, in), at.Load(out)), out); });
  }
}

void FillRows(float value, const View& x) {
  const VF v = hn::Set(DF(), value);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const OutRow out = RowAt(x, t);
    ForVectors(x.dim(1), [&](auto at) { Store(at, v, out); });
  }
}

double SquareSumRows(const ConstView& x) {
  double sum = 0;
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow row = RowAt(x, t);
    sum += RowSum(x.dim(1), [&](auto at, VF s) {
      const VF a = Load(at, row);
      return hn::MulAdd(a, a, s);
    });
  }
  return sum;
}

double SumRows(const ConstView& x) {
  double sum = 0;
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow row = RowAt(x, t);
    sum += RowSum(x.dim(1), [&](auto at, VF s) { return hn::Add(Load(at, row), s); });
  }
  return sum;
}

// A number is finite unless its exponent bits are all ones.
template <class U>
bool AnyAllOnes(const std::byte* data, int64_t n, U exponent) {
  const hn::ScalableTag<U> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const U* p = reinterpret_cast<const U*>(data);
  const auto ones = hn::Set(d, exponent);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    if (!hn::AllFalse(d, hn::Eq(hn::And(hn::LoadU(d, p + i), ones), ones))) return true;
  }
  for (; i < n; ++i) {
    if ((p[i] & exponent) == exponent) return true;
  }
  return false;
}

bool AnyNonFinite(const ConstView& row, int64_t n) {
  switch (row.dtype()) {
    case DType::kF32:
      return AnyAllOnes<uint32_t>(row.raw(), n, 0x7f800000u);
    case DType::kBF16:
      return AnyAllOnes<uint16_t>(row.raw(), n, 0x7f80u);
    case DType::kF16:
      return AnyAllOnes<uint16_t>(row.raw(), n, 0x7c00u);
    default:
      return AnyAllOnes<uint64_t>(row.raw(), n, 0x7ff0000000000000u);
  }
}

void DotRows(const ConstView& x, const ConstView& y, float* out) {
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const InRow a = RowAt(x, t), b = RowAt(y, t);
    out[t] = static_cast<float>(RowSum(x.dim(1), [&](auto at, VF sum) { return hn::MulAdd(Load(at, a), Load(at, b), sum); }));
  }
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace fathom
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <array>
#include <atomic>
#include <cstring>

#include "fathom/kernels/simd/rows.h"
#include "fathom/kernels/simd/worker_jobs.h"
#include "fathom/tensor/traced_bytes.h"

namespace fathom {
HWY_EXPORT(CastRows);
HWY_EXPORT(ScaleRange);
HWY_EXPORT(AddScaledRows);
HWY_EXPORT(FillRows);
HWY_EXPORT(SquareSumRows);
HWY_EXPORT(SumRows);
HWY_EXPORT(AnyNonFinite);
HWY_EXPORT(DotRows);

namespace {

constexpr int64_t kPiece = 2048;

// Matrices stay; of other ranks only contiguous ones, as one row.
template <class V>
V AsMatrix(const V& x) {
  if (x.rank() == 2) return x;
  FATHOM_CHECK(x.contiguous(), "view {} is neither a matrix nor contiguous", x.shape().ToString());
  return V(x.raw(), x.dtype(), Shape{1, x.NumElements()});
}

// f(part) on disjoint parts that cover x, each a matrix; parts are cut by x's shape alone, numbered 0..kMaxChunks-1.
template <class V, class F>
void ForParts(const V& x, const F& f) {
  const V m = AsMatrix(x);
  if (m.contiguous()) {
    const int64_t n = m.NumElements(), size = DTypeSize(m.dtype());
    const int64_t part = std::max(kPiece, ((n + kMaxChunks - 1) / kMaxChunks + kPiece - 1) / kPiece * kPiece);
    ParallelRanges((n + part - 1) / part, 1, [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) f(c, V(m.raw() + c * part * size, m.dtype(), Shape{1, std::min(part, n - c * part)}));
    });
    return;
  }
  const int64_t rows = m.dim(0), chunk = ChunkRows(rows, 1);
  ParallelRanges((rows + chunk - 1) / chunk, 1, [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) f(c, m.Rows(c * chunk, std::min(rows, (c + 1) * chunk)));
  });
}

template <class F>
double SumOfParts(const ConstView& x, const F& f) {
  std::array<double, kMaxChunks> partial = {};
  ForParts(x, [&](int64_t c, const ConstView& part) { partial[static_cast<size_t>(c)] = f(part); });
  double sum = 0;
  for (const double p : partial) sum += p;
  return sum;
}

bool SameShape(const ConstView& x, const ConstView& y) { return x.shape() == y.shape(); }

// f(part of x, part of y): elements when both are contiguous, else rows of the two matrices.
template <class F>
void ForPairs(const ConstView& x, const View& y, const F& f) {
  if (x.contiguous() && y.contiguous()) {
    const int64_t x_size = DTypeSize(x.dtype()), y_size = DTypeSize(y.dtype());
    ParallelRanges(x.NumElements(), kElementGrain, [&](int64_t begin, int64_t end) {
      const Shape shape = {1, end - begin};
      f(ConstView(x.raw() + begin * x_size, x.dtype(), shape), View(y.raw() + begin * y_size, y.dtype(), shape));
    });
    return;
  }
  const ConstView a = AsMatrix(x);
  const View b = AsMatrix(y);
  ParallelRanges(a.dim(0), RowGrain(a.dim(1)), [&](int64_t begin, int64_t end) { f(a.Rows(begin, end), b.Rows(begin, end)); });
}

}  // namespace

namespace {

// Rare (MaxText's float16 checkpoints), and the vector conversion rounds differently from target to target: element by element.
void CastToF16(const ConstView& x, const View& y) {
  ParallelRanges(x.dim(0), RowGrain(x.dim(1)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      F16* out = y.row<F16>(r);
      for (int64_t i = 0; i < x.dim(1); ++i) out[i] = ToF16(x.dtype() == DType::kF32 ? x.row<float>(r)[i] : ToFloat(x.row<BF16>(r)[i]));
    }
  });
}

}  // namespace

void Cast(ConstView x, View y) {
  if (y.dtype() == DType::kF16) {
    FATHOM_CHECK(SameShape(x, y) && IsRowType(x.dtype()), "x {} {}, y F16 {}", DTypeName(x.dtype()), x.shape().ToString(),
                 y.shape().ToString());
    return CastToF16(x, y);
  }
  FATHOM_CHECK(SameShape(x, y) && (IsRowType(x.dtype()) || x.dtype() == DType::kF16) && IsRowType(y.dtype()), "x {} {}, y {} {}",
               DTypeName(x.dtype()), x.shape().ToString(), DTypeName(y.dtype()), y.shape().ToString());
  TraceSlice slice("cast");
  AddBytes(slice, {x, y});
  ForPairs(x, y, [](const ConstView& a, const View& b) { HWY_DYNAMIC_DISPATCH(CastRows)(a, b); });
}

void Scale(float scale, View y) {
  FATHOM_CHECK(y.contiguous() && y.dtype() == DType::kF32, "y {} {}", DTypeName(y.dtype()), y.shape().ToString());
  ParallelRanges(y.NumElements(), kElementGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ScaleRange)(scale, y.data<float>() + begin, end - begin);
  });
}

void AddScaled(float scale, ConstView x, View y) {
  FATHOM_CHECK(SameShape(x, y) && IsRowType(x.dtype()) && y.dtype() == DType::kF32, "x {} {}, y {} {}", DTypeName(x.dtype()),
               x.shape().ToString(), DTypeName(y.dtype()), y.shape().ToString());
  ForPairs(x, y, [scale](const ConstView& a, const View& b) { HWY_DYNAMIC_DISPATCH(AddScaledRows)(scale, a, b); });
}

void Fill(float value, View x) {
  FATHOM_CHECK(IsRowType(x.dtype()), "x {}", DTypeName(x.dtype()));
  TraceSlice slice("fill");
  AddBytes(slice, {x});
  ForPairs(x, x, [value](const ConstView&, const View& part) { HWY_DYNAMIC_DISPATCH(FillRows)(value, part); });
}

void ZeroEach(std::span<const View> views) {
  TraceSlice slice("fill");
  for (const View& v : views) {
    FATHOM_CHECK(v.contiguous(), "{} is not contiguous", v.shape().ToString());
    AddBytes(slice, {v});
  }
  const int64_t owners = NumWorkers();
  ParallelRanges(owners, 1, [&](int64_t first, int64_t last) {
    for (int64_t owner = first; owner < last; ++owner) {
      for (const View& v : views) {
        const auto [begin, end] = OwnRange(v.NumBytes(), owner, owners);
        std::memset(v.raw() + begin, 0, static_cast<size_t>(end - begin));
      }
    }
  });
}

double SumSquares(ConstView x) {
  FATHOM_CHECK(IsRowType(x.dtype()), "x {}", DTypeName(x.dtype()));
  return SumOfParts(x, [](const ConstView& part) { return HWY_DYNAMIC_DISPATCH(SquareSumRows)(part); });
}

double Sum(ConstView x) {
  FATHOM_CHECK(IsRowType(x.dtype()), "x {}", DTypeName(x.dtype()));
  return SumOfParts(x, [](const ConstView& part) { return HWY_DYNAMIC_DISPATCH(SumRows)(part); });
}

bool HasNonFinite(ConstView x) {
  FATHOM_CHECK(IsRowType(x.dtype()) || x.dtype() == DType::kF16 || x.dtype() == DType::kF64, "x {}", DTypeName(x.dtype()));
  std::atomic<bool> found = false;
  ForParts(x, [&](int64_t, const ConstView& part) {
    for (int64_t t = 0; t < part.dim(0) && !found.load(std::memory_order_relaxed); ++t) {
      if (HWY_DYNAMIC_DISPATCH(AnyNonFinite)(part.Rows(t, t + 1), part.dim(1))) found.store(true, std::memory_order_relaxed);
    }
  });
  return found;
}

void RowDots(ConstView x, ConstView y, View out) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  FATHOM_CHECK(IsMatrix(x, rows, d) && IsMatrix(y, rows, d) && IsF32Vector(out, rows), "x {}, y {}, out {}", x.shape().ToString(),
               y.shape().ToString(), out.shape().ToString());
  ParallelRanges(rows, RowGrain(d), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(DotRows)(x.Rows(begin, end), y.Rows(begin, end), out.data<float>() + begin);
  });
}

}  // namespace fathom
#endif  // HWY_ONCE

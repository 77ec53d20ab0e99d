#include "fathom/kernels/elementwise/value_checks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "fathom/base/threads.h"

namespace fathom {
namespace {

constexpr int64_t kLanes = 8;  // independent sums, so that the compiler may use vectors without changing their order

template <class T>
float ValueAt(const std::byte* data, int64_t i) {
  T value;
  std::memcpy(&value, data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return ToFloat(value);
}

template <class T>
ValueCounts Count(const std::byte* data, int64_t n) {
  ValueCounts c;
  for (int64_t i = 0; i < n; ++i) {
    const float value = ValueAt<T>(data, i);
    if (!std::isfinite(value)) {
      if (c.first_non_finite < 0) c.first_non_finite = i;
      ++(std::isnan(value) ? c.nan : c.infinite);
      continue;
    }
    c.zero += value == 0;
    c.negative += value < 0;
    c.not_bf16 += RoundToBF16(value) != value;
  }
  return c;
}

struct LaneSums {
  std::array<double, kLanes> dot{}, a_squares{}, b_squares{};
  std::array<float, kLanes> max_abs{};
  std::array<int32_t, kLanes> non_finite{};

  void Add(int64_t lane, float a, float b) {
    const auto l = static_cast<size_t>(lane);
    const float delta = std::fabs(a - b);
    const bool finite = delta <= 3.4028234663852886e38f;  // false for NaN; a finite pair may overflow: then it counts as not finite
    const float fa = finite ? a : 0, fb = finite ? b : 0, d = finite ? delta : 0;
    max_abs[l] = d > max_abs[l] ? d : max_abs[l];
    dot[l] += static_cast<double>(fa) * fb;
    a_squares[l] += static_cast<double>(fa) * fa;
    b_squares[l] += static_cast<double>(fb) * fb;
    non_finite[l] += finite ? 0 : 1;
  }
};

bool SameValue(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

}  // namespace

bool HasNaNCode(ConstView x) {
  FATHOM_CHECK(x.dtype() == DType::kF8E4M3 && x.contiguous(), "x {}", DTypeName(x.dtype()));
  constexpr int64_t kChunk = 1 << 16;
  const auto* codes = reinterpret_cast<const uint8_t*>(x.raw());
  const int64_t n = x.NumElements();
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    uint8_t found = 0;
    for (int64_t i = begin, end = std::min(n, begin + kChunk); i < end; ++i) found |= (codes[i] & 0x7f) == 0x7f ? 1 : 0;
    if (found != 0) return true;
  }
  return false;
}

ValueCounts CountValues(ConstView x) {
  FATHOM_CHECK(x.contiguous());
  const int64_t n = x.NumElements();
  switch (x.dtype()) {
    case DType::kF32:
      return Count<float>(x.raw(), n);
    case DType::kBF16:
      return Count<BF16>(x.raw(), n);
    case DType::kF16:
      return Count<F16>(x.raw(), n);
    case DType::kF8E4M3:
      return Count<F8E4M3>(x.raw(), n);
    case DType::kF8E8M0:
      return Count<F8E8M0>(x.raw(), n);
    default:
      FATHOM_CHECK(false, "dtype {}", DTypeName(x.dtype()));
  }
}

Difference& Difference::operator+=(const Difference& other) {
  max_abs = std::max(max_abs, other.max_abs);
  dot += other.dot;
  a_squares += other.a_squares;
  b_squares += other.b_squares;
  non_finite += other.non_finite;
  return *this;
}

double Difference::Cosine() const {
  if (a_squares == 0 || b_squares == 0) return a_squares == b_squares ? 1 : 0;
  return dot / (std::sqrt(a_squares) * std::sqrt(b_squares));
}

Difference CompareValues(const float* a, const float* b, int64_t n) {
  LaneSums sums;
  const int64_t whole = n / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sums.Add(lane, a[i + lane], b[i + lane]);
  }
  for (int64_t i = whole; i < n; ++i) sums.Add(i - whole, a[i], b[i]);
  Difference d;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    d += {sums.max_abs[lane], sums.dot[lane], sums.a_squares[lane], sums.b_squares[lane], sums.non_finite[lane]};
  }
  if (d.non_finite > 0) {  // infinities and NaN that stand on both sides are no difference
    for (int64_t i = 0; i < n; ++i) d.non_finite -= !std::isfinite(a[i] - b[i]) && SameValue(a[i], b[i]) ? 1 : 0;
  }
  return d;
}

}  // namespace fathom

#include "fathom/checkpoint/check/parameter_values.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "fathom/kernels/gemm/gemm_panel.h"

namespace fathom {
namespace {

constexpr int64_t kPanel = 1 << 16, kTile = 64;  // elements that are read at a time; side of a tile that is transposed

ConstView AsMatrix(const Tensor& t, int64_t rows, int64_t columns) {
  return t.shape().rank() == 2 ? t.view() : t.view().Reshape({rows, columns});
}

// Half a step of E4M3 around y, a code times its scale, with room for another order of dividing and rounding.
float HalfStep(float y, float scale) {
  const float code = std::fabs(y) / scale;
  const int exponent = code > 0 ? std::max(std::ilogb(code), -6) : -6;
  return std::ldexp(scale, exponent - 4) * 1.001F;
}

bool IsNarrowedValue(Narrowing narrowing, float x, float y, float scale) {
  switch (narrowing) {
    case Narrowing::kNone:
      return x == y;
    case Narrowing::kBF16:
      return RoundToBF16(x) == y;
    case Narrowing::kF16:
      return ToFloat(ToF16(x)) == y;
    case Narrowing::kFp8:
      return std::fabs(x - y) <= HalfStep(y, scale);
    case Narrowing::kFp8OfBF16:
      return std::fabs(x - y) <= HalfStep(y, scale) + std::fabs(x) / 256;
  }
  return false;
}

// f(row, n, values) for all rows, a few at a time (the first alone: it tells most that differ); false as soon as f says so.
template <class F>
bool ForPanels(const ParameterValues& p, const F& f) {
  const int64_t most = std::max<int64_t>(1, kPanel / p.columns());
  std::vector<float> values;
  for (int64_t row = 0, n = 1; row < p.rows(); row += n, n = std::min(most, p.rows() - row)) {
    values.resize(static_cast<size_t>(n * p.columns()));
    p.Read(row, n, 0, p.columns(), values.data());
    if (!f(row, n, values.data())) return false;
  }
  return true;
}

// The rows' bits (NaN has no order), sorted.
std::vector<std::vector<uint32_t>> SortedRows(const ParameterValues& p) {
  std::vector<std::vector<uint32_t>> rows;
  std::vector<float> values(static_cast<size_t>(p.columns()));
  for (int64_t i = 0; i < p.rows(); ++i) {
    p.Read(i, 1, 0, p.columns(), values.data());
    rows.emplace_back();
    for (const float v : values) rows.back().push_back(std::bit_cast<uint32_t>(v));
  }
  std::ranges::sort(rows);
  return rows;
}

}  // namespace

ParameterValues::ParameterValues(Weight weight) : weight_(std::move(weight)) {
  const Shape& shape = weight_.value.shape();
  rows_ = shape.rank() > 0 ? shape[0] : 1;
  columns_ = shape.rank() == 2 ? shape[1] : 1;
}

void ParameterValues::Read(int64_t row, int64_t n, int64_t column, int64_t m, float* to) const {
  if (columns_ == 1 && weight_.scale_inv.empty()) {  // as one row, that it is read in one piece
    return WidenPanel({AsMatrix(weight_.value, 1, rows_).Reshape({1, rows_}), {}}, {0, 1, row, n}, false, to);
  }
  WidenPanel(weight_.view(), {row, n, column, m}, false, to);
}

float ParameterValues::Scale(int64_t row, int64_t column) const {
  if (weight_.scale_inv.empty()) return 1;
  const Tensor& s = weight_.scale_inv;
  const int64_t at = row / kScaleBlock * s.dim(1) + column / kScaleBlock;
  return s.dtype() == DType::kF32 ? s.data<float>()[at] : ToFloat(s.data<F8E8M0>()[at]);
}

Narrowing NarrowingOf(const ParameterValues& a, const ParameterValues& b) {
  if (a.dtype() == b.dtype()) return Narrowing::kNone;
  if (b.dtype() == DType::kBF16) return Narrowing::kBF16;
  if (b.dtype() == DType::kF16) return Narrowing::kF16;
  if (b.dtype() != DType::kF8E4M3) return Narrowing::kNone;
  return a.dtype() == DType::kBF16 ? Narrowing::kFp8OfBF16 : Narrowing::kFp8;
}

namespace {
bool SameBytes(const Tensor& a, const Tensor& b) {
  if (a.empty() || b.empty()) return a.empty() == b.empty();
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  return std::memcmp(a.view().raw(), b.view().raw(), static_cast<size_t>(a.NumBytes())) == 0;
}
}  // namespace

bool SameBytes(const ParameterValues& a, const ParameterValues& b) {
  return SameBytes(a.weight().value, b.weight().value) && SameBytes(a.weight().scale_inv, b.weight().scale_inv);
}

bool SameCodes(const ParameterValues& a, const ParameterValues& b) {
  return a.dtype() == DType::kF8E4M3 && SameBytes(a.weight().value, b.weight().value);
}

bool IsNarrowed(const ParameterValues& a, const ParameterValues& b, Narrowing narrowing) {
  std::vector<float> from;
  return ForPanels(b, [&](int64_t row, int64_t n, const float* values) {
    from.resize(static_cast<size_t>(n * b.columns()));
    a.Read(row, n, 0, b.columns(), from.data());
    for (int64_t i = 0; i < n * b.columns(); ++i) {
      const float scale = b.Scale(row + i / b.columns(), i % b.columns());
      if (!IsNarrowedValue(narrowing, from[static_cast<size_t>(i)], values[i], scale)) return false;
    }
    return true;
  });
}

bool HasRowsOf(const ParameterValues& a, const ParameterValues& b, FunctionRef<int64_t(int64_t)> source) {
  const Narrowing narrowing = NarrowingOf(a, b);
  const int64_t width = b.columns();
  std::vector<float> x(static_cast<size_t>(width)), y(x.size());
  for (int64_t row = 0; row < b.rows(); ++row) {
    a.Read(source(row), 1, 0, width, x.data());
    b.Read(row, 1, 0, width, y.data());
    for (int64_t i = 0; i < width; ++i) {
      if (!IsNarrowedValue(narrowing, x[static_cast<size_t>(i)], y[static_cast<size_t>(i)], b.Scale(row, i))) return false;
    }
  }
  return true;
}

bool HasPermutedRowsOf(const ParameterValues& a, const ParameterValues& b) { return SortedRows(a) == SortedRows(b); }

bool IsTransposed(const ParameterValues& a, const ParameterValues& b) {
  const int64_t n = b.rows();
  if (n != b.columns() || a.rows() != n || a.columns() != n) return false;
  const Narrowing narrowing = NarrowingOf(a, b);
  std::vector<float> x(kTile * kTile), y(kTile * kTile);
  for (int64_t tile = 0, across = (n + kTile - 1) / kTile; tile < across * across; ++tile) {
    const int64_t row = tile / across * kTile, column = tile % across * kTile;
    const int64_t height = std::min(kTile, n - row), width = std::min(kTile, n - column);
    b.Read(row, height, column, width, y.data());
    a.Read(column, width, row, height, x.data());
    for (int64_t i = 0; i < height * width; ++i) {
      const int64_t r = i / width, c = i % width;
      if (!IsNarrowedValue(narrowing, x[static_cast<size_t>(c * height + r)], y[static_cast<size_t>(i)], b.Scale(row + r, column + c)))
        return false;
    }
  }
  return true;
}

bool IsZero(const ParameterValues& b) {
  return ForPanels(b, [&](int64_t, int64_t n, const float* values) {
    return std::all_of(values, values + n * b.columns(), [](float v) { return v == 0; });
  });
}

}  // namespace fathom

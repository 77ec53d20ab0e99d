#include "fathom/optim/qk_clip.h"

#include <algorithm>
#include <cmath>

#include "fathom/base/error.h"
#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {
namespace {

constexpr double kSmall = 1e-6;

double ScaleRows(double factor, View w, View copy, const Rounding& rounding) {
  const View flat = w.Reshape({w.NumElements()});
  const double before = SumSquares(flat);
  ScaleInto(static_cast<float>(factor), flat, flat, rounding);
  if (!copy.empty()) Cast(w, copy);
  return SumSquares(flat) - before;
}

}  // namespace

double ClipHeads(std::span<const float> max_logits, double threshold, const ClippedMatrix& m, const Rounding& rounding) {
  const int64_t each = m.nope + m.other, heads = std::ssize(max_logits), end_row = m.first_row + m.w.dim(0), columns = m.w.dim(1);
  FATHOM_CHECK(end_row <= heads * each, "rows up to {} of {} heads", end_row, heads);
  double grown = 0;
  for (int64_t h = m.first_row / each; h * each < end_row; ++h) {
    const double largest = max_logits[static_cast<size_t>(h)], g = largest > 0 ? std::min(1.0, threshold / (largest + kSmall)) : 1;
    if (g == 1) continue;
    const auto scale = [&](double factor, int64_t part_begin, int64_t part_end) {
      const int64_t begin = std::max(part_begin, m.first_row), end = std::min(part_end, end_row);
      if (begin >= end) return;
      const auto rows = [&](const View& x) { return x.empty() ? View() : x.Rows(begin - m.first_row, end - m.first_row); };
      const Rounding own = rounding.WithKey(rounding.key + static_cast<uint32_t>(h));
      grown += ScaleRows(factor, rows(m.w), rows(m.bf16_copy), own.From((begin - part_begin) * columns));
    };
    scale(std::sqrt(g), h * each, h * each + m.nope);
    if (m.scales_other) scale(g, h * each + m.nope, (h + 1) * each);
  }
  return grown;
}

}  // namespace fathom

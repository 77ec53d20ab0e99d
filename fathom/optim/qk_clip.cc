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
  const int64_t each = m.nope + m.other, heads = std::ssize(max_logits);
  FATHOM_CHECK(m.w.dim(0) == heads * each, "{} rows of {} heads", m.w.dim(0), heads);
  double grown = 0;
  for (int64_t h = 0; h < heads; ++h) {
    const double largest = max_logits[static_cast<size_t>(h)], g = largest > 0 ? std::min(1.0, threshold / (largest + kSmall)) : 1;
    if (g == 1) continue;
    const auto scale = [&](double factor, int64_t begin, int64_t end) {
      const Rounding own = rounding.WithKey(rounding.key + static_cast<uint32_t>(h));
      grown += ScaleRows(factor, m.w.Rows(begin, end), m.bf16_copy.empty() ? View() : m.bf16_copy.Rows(begin, end), own);
    };
    scale(std::sqrt(g), h * each, h * each + m.nope);
    if (m.scales_other) scale(g, h * each + m.nope, (h + 1) * each);
  }
  return grown;
}

}  // namespace fathom

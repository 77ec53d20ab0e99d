#include "fathom/model/load.h"

#include <algorithm>

#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/gemm/gemm_panel.h"

namespace fathom {
namespace {

bool IsRouterBias(const std::string& name) { return name.ends_with("e_score_correction_bias"); }

bool IsComputedWith(const std::string& name, DType stored) { return IsRouterBias(name) ? stored == DType::kF32 : stored != DType::kF16; }

// The weight's values in y's dtype, FP8 times its scales.
void Dequantize(const Weight& w, View y) {
  if (w.scale_inv.empty()) return Cast(w.value.view(), y);
  const int64_t rows = w.value.dim(0), columns = w.value.dim(1);
  std::vector<float> block(static_cast<size_t>(kScaleBlock * columns));
  for (int64_t row = 0; row < rows; row += kScaleBlock) {
    const int64_t n = std::min(kScaleBlock, rows - row);
    WidenPanel(w, {row, n, 0, columns}, false, block.data());
    Cast(ViewOf(static_cast<const float*>(block.data()), {n, columns}), y.Rows(row, row + n));
  }
}

}  // namespace

DecoderParams MapParams(const Checkpoint& checkpoint) {
  DecoderParams params = DecoderParams::For(checkpoint.config());
  DecoderParams::Visit(params, [&](const std::string& name, Weight& w) {
    if (!checkpoint.Has(name)) return;
    w = checkpoint.GetWeight(name);
    if (IsComputedWith(name, w.value.dtype())) return;
    Tensor wide(DType::kF32, w.value.shape());
    Dequantize(w, wide.mutable_view());
    w.value = std::move(wide);
    checkpoint.DropPages(name);
  });
  return params;
}

DecoderParams CopyParams(const Checkpoint& checkpoint, DType dtype, bool mtp_copies) {
  DecoderParams params = DecoderParams::For(checkpoint.config());
  DecoderParams::Visit(params, [&](const std::string& name, Weight& w) {
    if (!checkpoint.Has(name) || (!mtp_copies && IsMtpCopy(name))) return;
    const Weight stored = checkpoint.GetWeight(name);
    w.value = Tensor(IsRouterBias(name) ? DType::kF32 : dtype, stored.value.shape());
    Dequantize(stored, w.value.mutable_view());
    checkpoint.DropPages(name);
  });
  return params;
}

}  // namespace fathom

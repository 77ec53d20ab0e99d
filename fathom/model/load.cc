#include "fathom/model/load.h"

#include <algorithm>

#include "fathom/base/threads.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/gemm/gemm_panel.h"

namespace fathom {
namespace {

bool IsComputedWith(ParamRole role, DType stored) { return LearnsByCounting(role) ? stored == DType::kF32 : stored != DType::kF16; }

// The weight's values in y's dtype, FP8 times its scales.
void Dequantize(const Weight& w, View y) {
  if (w.scale_inv.empty()) return Cast(w.value.view(), y);
  const int64_t rows = w.value.dim(0), columns = w.value.dim(1);
  ParallelRanges((rows + kScaleBlock - 1) / kScaleBlock, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> block(static_cast<size_t>(kScaleBlock * columns));
    for (int64_t row = begin * kScaleBlock; row < std::min(rows, end * kScaleBlock); row += kScaleBlock) {
      const int64_t n = std::min(kScaleBlock, rows - row);
      WidenPanel(w, {row, n, 0, columns}, false, block.data());
      Cast(ViewOf(static_cast<const float*>(block.data()), {n, columns}), y.Rows(row, row + n));
    }
  });
}

}  // namespace

DecoderParams LoadParams(const Checkpoint& checkpoint, const ModelConfig& config, DType dtype, ParamFilter copied) {
  DecoderParams params = DecoderParams::For(config);
  for (const ParamSpec& param : *params.spec) {
    if (!checkpoint.Has(param.name)) continue;
    Weight stored = checkpoint.GetWeight(param.name);
    Weight& w = params[param];
    if (!copied(param) && IsComputedWith(param.role, stored.value.dtype())) {
      w = std::move(stored);
      continue;
    }
    const bool wide = LearnsByCounting(param.role) || !copied(param);
    w.value = Tensor(wide ? DType::kF32 : dtype, stored.value.shape());
    Dequantize(stored, w.value.mutable_view());
    checkpoint.DropPages(param.name);
  }
  return params;
}

DecoderParams MapParams(const Checkpoint& checkpoint) {
  return LoadParams(checkpoint, checkpoint.config(), DType::kF32, [](const ParamSpec&) { return false; });
}

DecoderParams CopyParams(const Checkpoint& checkpoint, DType dtype) {
  return LoadParams(checkpoint, checkpoint.config(), dtype, [](const ParamSpec&) { return true; });
}

}  // namespace fathom

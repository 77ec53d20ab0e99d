#include "fathom/model/load.h"

#include <algorithm>

#include "fathom/base/plan_scope.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/convert/hub_tensors.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/kernels/gemm/gemm_panel.h"

namespace fathom {
namespace {

bool IsComputedWith(ParamRole role, DType stored) { return LearnsByCounting(role) ? stored == DType::kF32 : stored != DType::kF16; }

// The values of a part of the weight in y's dtype, FP8 times its scales.
void Dequantize(const Weight& w, const Region& part, View y) {
  if (w.scale_inv.empty()) return Cast(PartOf(w.value.view(), part), y);
  const int64_t rows = part.rows(), columns = part.columns();
  ParallelRanges((rows + kScaleBlock - 1) / kScaleBlock, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> block(static_cast<size_t>(kScaleBlock * columns));
    for (int64_t row = begin * kScaleBlock; row < std::min(rows, end * kScaleBlock); row += kScaleBlock) {
      const int64_t n = std::min(kScaleBlock, rows - row);
      WidenPanel(w, {part.row_begin + row, n, part.column_begin, columns}, false, block.data());
      Cast(ViewOf(static_cast<const float*>(block.data()), {n, columns}), y.Rows(row, row + n));
    }
  });
}

Region Wanted(const ParamSpec& param, RegionOf region) { return region ? region(param) : WholeOf(param.shape); }

// Both ends on the border of a block, or at the end of the matrix.
bool CutsBlocks(int64_t begin, int64_t end, int64_t all) { return begin % kScaleBlock != 0 || (end % kScaleBlock != 0 && end != all); }

// A part of a matrix where the file has it, with the scales of its blocks.
Weight MappedPart(const Weight& w, const Region& part, const std::string& name) {
  const Shape whole = w.value.shape();
  if (part == WholeOf(whole)) return w;
  Weight mapped{.value = Tensor(w.value.owner(), PartOf(w.value.view(), part))};
  if (w.scale_inv.empty()) return mapped;
  if (CutsBlocks(part.row_begin, part.row_end, whole[0]) || CutsBlocks(part.column_begin, part.column_end, whole[1])) {
    Throw(ErrorCode::kUsage, "ici_tensor_parallelism: {} {} is FP8 with scales for blocks of {} x {}, which it would cut: give 1", name,
          whole.ToString(), kScaleBlock, kScaleBlock);
  }
  const auto block = [](int64_t end) { return (end + kScaleBlock - 1) / kScaleBlock; };
  const Region scales{part.row_begin / kScaleBlock, block(part.row_end), part.column_begin / kScaleBlock, block(part.column_end)};
  mapped.scale_inv = Tensor(w.scale_inv.owner(), PartOf(w.scale_inv.view(), scales));
  return mapped;
}

Tensor ReadOnly(const Tensor& tensor) { return {tensor.owner(), tensor.view()}; }

}  // namespace

DecoderParams LoadParams(const Checkpoint& checkpoint, const ModelConfig& config, DType dtype, ParamFilter copied, RegionOf region) {
  DecoderParams params = DecoderParams::For(config);
  for (const ParamSpec& param : *params.spec) {
    const Region part = Wanted(param, region);
    if (!checkpoint.Has(param.name) || part.rows() == 0) continue;
    const Weight stored = checkpoint.GetWeight(param.name);
    Weight& w = params[param];
    if (!copied(param) && IsComputedWith(param.role, stored.value.dtype())) {
      w = MappedPart(stored, part, param.name);
      continue;
    }
    const bool wide = LearnsByCounting(param.role) || !copied(param);
    w.value = Tensor(wide ? DType::kF32 : dtype, ShapeOf(part, param.shape));
    Dequantize(stored, part, w.value.mutable_view());
    checkpoint.DropPages(param.name);
  }
  return params;
}

DecoderParams MapHubParams(const ModelConfig& config, RegionOf region) {
  FATHOM_CHECK(PlanScope::Active(), "a checkpoint that is not here can only be planned with");
  const bool fp8 = IsFp8OnHub(config);
  DecoderParams params = DecoderParams::For(config);
  for (const ParamSpec& param : *params.spec) {
    const Region part = Wanted(param, region);
    if (part.rows() == 0) continue;
    Weight stored{.value = ReadOnly(Tensor(HubDType(param, fp8), param.shape))};
    if (stored.value.dtype() == DType::kF8E4M3) stored.scale_inv = ReadOnly(Tensor(DType::kF32, ScaleShape(param.shape)));
    params[param] = MappedPart(stored, part, param.name);
  }
  return params;
}

int64_t StoredBytes(const Checkpoint& checkpoint, const ModelSpec& spec, RegionOf region) {
  int64_t bytes = 0;
  for (const ParamSpec& param : spec) {
    const Region part = Wanted(param, region);
    if (!checkpoint.Has(param.name) || part.rows() == 0) continue;
    const Weight stored = checkpoint.GetWeight(param.name);
    bytes += ShapeOf(part, param.shape).NumElements() * DTypeSize(stored.value.dtype()) + stored.scale_inv.NumBytes();
  }
  return bytes;
}

DecoderParams MapParams(const Checkpoint& checkpoint, RegionOf region) {
  return LoadParams(
      checkpoint, checkpoint.config(), DType::kF32, [](const ParamSpec&) { return false; }, region);
}

DecoderParams CopyParams(const Checkpoint& checkpoint, DType dtype) {
  return LoadParams(checkpoint, checkpoint.config(), dtype, [](const ParamSpec&) { return true; });
}

}  // namespace fathom

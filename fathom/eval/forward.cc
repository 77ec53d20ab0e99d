#include "fathom/eval/forward.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "fathom/model/adapters.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {
constexpr int64_t kScratchSpace = int64_t{64} << 30;  // address space; memory is taken where it is touched
}

ForwardModel::ForwardModel(const Checkpoint& checkpoint, DType compute, const LayerOptions& layers, const std::filesystem::path& adapter,
                           const Mesh& mesh)
    : sharding_(checkpoint.config(), mesh),
      groups_{.tensor = mesh.comm(Axis::kTensor), .expert = mesh.comm(Axis::kExpert), .same_tokens = true},
      params_(MapParams(checkpoint, [this](const ParamSpec& param) { return sharding_.Computed(param); })),
      decoder_(sharding_.LocalConfig(), layers),
      compute_(compute),
      saved_(1 << 20),
      scratch_(kScratchSpace) {
  if (!adapter.empty()) AttachForInference(adapter, sharding_, params_);
}

ForwardModel::ForwardModel(DecoderParams params, const ModelConfig& config, DType compute, const LayerOptions& layers)
    : params_(std::move(params)), decoder_(config, layers), compute_(compute), saved_(1 << 20), scratch_(kScratchSpace) {}

Tensor ForwardModel::Logits(std::span<const int32_t> ids, const TokenLayout& layout, const LayerObserver& observer) {
  ArenaScope scope(scratch_);
  Ctx ctx = Context();
  decoder_.EnsurePositions(1 + *std::ranges::max_element(layout.positions));
  const auto tokens = static_cast<int64_t>(ids.size());
  const View h = scratch_.Alloc(DType::kF32, {tokens, config().hidden_size});
  decoder_.Forward(ctx, params_, ids, layout, h, observer);
  Tensor logits(DType::kF32, {tokens, config().vocab_size});
  decoder_.head().StreamLogits(ctx, {params_.norm, params_.lm_head}, h, logits.mutable_view());
  return logits;
}

Tensor ForwardModel::Logits(std::span<const int32_t> ids) {
  std::vector<int32_t> positions(ids.size());
  std::iota(positions.begin(), positions.end(), 0);
  const auto n = static_cast<int64_t>(ids.size());
  const Segment all{0, n, 0, n};
  return Logits(ids, {positions, {&all, 1}});
}

std::vector<std::vector<double>> ForwardModel::LogitRows(std::span<const int32_t> ids) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= config().vocab_size)
      Throw(ErrorCode::kInput, "token {}: the model's vocabulary is 0..{}", id, config().vocab_size - 1);
  }
  const Tensor logits = Logits(ids);
  std::vector<std::vector<double>> rows;
  for (int64_t i = 0; i < logits.dim(0); ++i) {
    const float* row = logits.data<float>() + i * logits.dim(1);
    rows.emplace_back(row, row + logits.dim(1));
  }
  return rows;
}

LossSums ForwardModel::Loss(const TokenBatch& batch) {
  Ctx ctx = Context();
  const auto& positions = batch.layout.positions;
  decoder_.EnsurePositions(1 + *std::max_element(positions.begin(), positions.end()));
  return decoder_.Loss(ctx, params_, batch, {}, {});
}

}  // namespace fathom

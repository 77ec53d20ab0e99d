#include "fathom/eval/forward.h"

#include <algorithm>
#include <numeric>

#include "fathom/model/adapters.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {
constexpr int64_t kScratchSpace = int64_t{64} << 30;  // address space; memory is taken where it is touched
}

ForwardModel::ForwardModel(const Checkpoint& checkpoint, DType compute, const LayerOptions& layers, const std::filesystem::path& adapter)
    : params_(MapParams(checkpoint)), decoder_(checkpoint.config(), layers), compute_(compute), saved_(1 << 20), scratch_(kScratchSpace) {
  if (!adapter.empty()) AttachForInference(adapter, params_);
}

Tensor ForwardModel::Logits(std::span<const int32_t> ids, const TokenLayout& layout, const LayerObserver& observer) {
  ArenaScope scope(scratch_);
  Ctx ctx{saved_, scratch_, compute_};
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

LossSums ForwardModel::Loss(const TokenBatch& batch) {
  Ctx ctx{saved_, scratch_, compute_};
  const auto& positions = batch.layout.positions;
  decoder_.EnsurePositions(1 + *std::max_element(positions.begin(), positions.end()));
  return decoder_.Loss(ctx, params_, batch, {}, {});
}

}  // namespace fathom

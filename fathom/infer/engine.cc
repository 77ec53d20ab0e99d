#include "fathom/infer/engine.h"

#include <algorithm>

#include "fathom/checkpoint/hf_names.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {

constexpr int64_t kPrefillChunk = 512;                  // tokens: enough rows for fast products, little memory
constexpr int64_t kScratchSpace = int64_t{64} << 30;    // address space; memory is taken where it is touched

Checkpoint OpenChecked(const std::filesystem::path& dir) {
  Checkpoint checkpoint = Checkpoint::Open(dir);
  ValidateAgainstConfig(checkpoint);
  return checkpoint;
}

int64_t CheckedCapacity(const ModelConfig& config, int64_t capacity) {
  if (capacity > config.max_position_embeddings) {
    Throw(ErrorCode::kUsage, "{} tokens of prompt and answer: the model's max_position_embeddings is {}", capacity, config.max_position_embeddings);
  }
  return capacity;
}

}  // namespace

Engine::Engine(const std::filesystem::path& dir, DType compute, int64_t capacity)
    : checkpoint_(OpenChecked(dir)),
      params_(MapParams(checkpoint_)),
      decoder_(checkpoint_.config()),
      compute_(compute),
      cache_(checkpoint_.config(), checkpoint_.config().num_hidden_layers, CheckedCapacity(checkpoint_.config(), capacity), compute),
      saved_(1 << 20),
      scratch_(kScratchSpace),
      logits_(DType::kF32, {1, checkpoint_.config().vocab_size}) {
  decoder_.EnsurePositions(capacity);
}

std::span<const float> Engine::Append(std::span<const int32_t> ids) {
  Ctx ctx{saved_, scratch_, compute_};
  const auto n = static_cast<int64_t>(ids.size());
  for (int64_t begin = 0; begin < n; begin += kPrefillChunk) {
    const int64_t count = std::min(kPrefillChunk, n - begin);
    const bool last = begin + count == n;
    decoder_.Decode(ctx, params_, ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), cache_, last ? logits_.mutable_view() : View(), {});
  }
  return {logits_.data<float>(), static_cast<size_t>(logits_.NumElements())};
}

int64_t Engine::WeightBytes() const {
  int64_t bytes = 0;
  auto params = params_;
  for (const NamedWeight& w : ListParams(params)) bytes += w.weight->value.NumBytes() + w.weight->scale_inv.NumBytes();
  return bytes;
}

}  // namespace fathom

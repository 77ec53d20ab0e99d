#include "fathom/infer/engine.h"

#include <algorithm>
#include <set>

#include "fathom/checkpoint/hub/hf_names.h"
#include "fathom/model/load.h"

namespace fathom {
namespace {

constexpr int64_t kPrefillChunk = Drafter::kChunk;    // tokens: enough rows for fast products, little memory
constexpr int64_t kScratchSpace = int64_t{64} << 30;  // address space; memory is taken where it is touched

Checkpoint OpenChecked(const std::filesystem::path& dir) {
  Checkpoint checkpoint = Checkpoint::Open(dir);
  ValidateAgainstConfig(checkpoint);
  return checkpoint;
}

int64_t CheckedCapacity(const ModelConfig& config, int64_t capacity) {
  if (capacity > config.max_position_embeddings) {
    Throw(ErrorCode::kUsage, "{} tokens of prompt and answer: the model's max_position_embeddings is {}", capacity,
          config.max_position_embeddings);
  }
  return capacity;
}

int64_t CacheLayers(const ModelConfig& config, const DraftOptions& drafts) { return config.num_hidden_layers + (drafts.enabled ? 1 : 0); }

// Mapped; the module's embedding and head are the main model's unless it has and wants its own.
DecoderParams DraftingParams(const Checkpoint& checkpoint, const DraftOptions& drafts) {
  DecoderParams params = MapParams(checkpoint);
  if (!drafts.enabled) return params;
  if (params.mtp.empty() || params.mtp[0].eh_proj.value.empty()) {
    Throw(ErrorCode::kUsage, "speculative=mtp: {} has no MTP module to draft with; leave the flag out", checkpoint.dir().string());
  }
  if (!drafts.own_head || params.mtp[0].shared_head_head.value.empty()) ShareEmbeddingAndHead(params);
  return params;
}

}  // namespace

Engine::Engine(const std::filesystem::path& dir, DType compute, int64_t capacity, const DraftOptions& drafts, const LayerOptions& layers)
    : checkpoint_(OpenChecked(dir)),
      params_(DraftingParams(checkpoint_, drafts)),
      decoder_(checkpoint_.config(), layers),
      compute_(compute),
      cache_(checkpoint_.config(), CacheLayers(checkpoint_.config(), drafts), CheckedCapacity(checkpoint_.config(), capacity), compute),
      saved_(1 << 20),
      scratch_(kScratchSpace),
      logits_(DType::kF32, {1, checkpoint_.config().vocab_size}) {
  decoder_.EnsurePositions(capacity);
  if (drafts.enabled) drafter_.emplace(decoder_, params_, drafts.input, cache_);
}

void Engine::Reset() {
  cache_.length = 0;
  if (drafter_) drafter_->Reset();
}

std::span<const float> Engine::Append(std::span<const int32_t> ids) {
  Ctx ctx = Context();
  const auto n = static_cast<int64_t>(ids.size());
  for (int64_t begin = 0; begin < n; begin += kPrefillChunk) {
    ArenaScope scope(scratch_);
    const int64_t count = std::min(kPrefillChunk, n - begin);
    const auto chunk = ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    const View hidden = drafter_ ? scratch_.Alloc(DType::kF32, {count, config().hidden_size}) : View();
    decoder_.Decode(ctx, params_, chunk, cache_, begin + count == n ? logits_.mutable_view() : View(), hidden);
    if (drafter_) drafter_->Observe(ctx, chunk, hidden);
  }
  return {logits_.data<float>(), static_cast<size_t>(logits_.NumElements())};
}

std::span<const float> Engine::FirstDraft(int32_t last) {
  Ctx ctx = Context();
  return drafter_->First(ctx, last);
}

std::span<const float> Engine::NextDraft(int32_t drafted) {
  Ctx ctx = Context();
  return drafter_->Next(ctx, drafted);
}

ConstView Engine::Verify(std::span<const int32_t> ids) {
  Ctx ctx = Context();
  const auto m = static_cast<int64_t>(ids.size());
  if (verified_.empty() || verified_.dim(0) < m) {
    hidden_ = Tensor(DType::kF32, {m, config().hidden_size});
    verified_ = Tensor(DType::kF32, {m, config().vocab_size});
  }
  unkept_.assign(ids.begin(), ids.end());
  const View logits = verified_.mutable_view().Rows(0, m);
  decoder_.Decode(ctx, params_, ids, cache_, logits, hidden_.mutable_view().Rows(0, m));
  return logits;
}

void Engine::Keep(int64_t count) {
  Ctx ctx = Context();
  cache_.length -= std::ssize(unkept_) - count;
  drafter_->Observe(ctx, std::span(unkept_).first(static_cast<size_t>(count)), hidden_.view().Rows(0, count));
}

int64_t Engine::WeightBytes() const {
  int64_t bytes = 0;
  auto params = params_;
  std::set<const std::byte*> seen;  // one memory under two names counts once
  for (const NamedWeight& w : ListParams(params)) {
    if (seen.insert(w.weight->value.view().raw()).second) bytes += w.weight->value.NumBytes() + w.weight->scale_inv.NumBytes();
  }
  return bytes;
}

}  // namespace fathom

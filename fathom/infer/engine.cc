#include "fathom/infer/engine.h"

#include <algorithm>
#include <vector>

namespace fathom {
namespace {

constexpr int64_t kScratchSpace = int64_t{64} << 30;  // address space; memory is taken where it is touched

// Rows of the pass's stream that want logits, one behind the other.
View LogitRows(Arena& scratch, std::span<const Engine::Part> parts, int64_t count, ConstView h) {
  const View rows = scratch.Alloc(DType::kF32, {count, h.dim(1)});
  int64_t to = 0, end = 0;
  for (const Engine::Part& part : parts) {
    end += std::ssize(part.ids);
    for (int64_t row = end - part.logits; row < end; ++row) std::copy_n(h.row<float>(row), h.dim(1), rows.row<float>(to++));
  }
  return rows;
}

}  // namespace

double SlowestOf(const LayerGroups& groups, double seconds) {
  for (const Comm* group : {&groups.tensor, &groups.expert}) group->AllMax(std::span(&seconds, 1));
  return seconds;
}

Engine::Engine(const MappedModel& model, int64_t sequences, bool by_row)
    : model_(model),
      by_row_(by_row),
      pool_(model.config(), model.CacheLayers(), sequences * CachePool::BlocksFor(model.capacity()), model.compute()),
      saved_(1 << 20),
      scratch_(kScratchSpace) {
  if (model.drafts().enabled) drafter_.emplace(model_, pool_);
}

ConstView Engine::Append(std::span<const Part> parts) {
  if (window_ != nullptr) window_->Begin(passes_++);
  const auto is_long = [](const Part& part) { return part.is_prompt && std::ssize(part.ids) > kSharedPart; };
  const bool by_row = by_row_ || std::ranges::none_of(parts, is_long);
  Ctx ctx = Context(by_row ? Arithmetic::kByRow : Arithmetic::kFastest);
  ArenaScope scope(scratch_);
  std::vector<int32_t> ids;
  std::vector<CachedSegment> segments;
  int64_t wanted = 0;
  for (const Part& part : parts) {
    const int64_t begin = std::ssize(ids), past = part.sequence->length();
    ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    part.sequence->cache.Own(past, past + std::ssize(part.ids));
    segments.push_back({begin, std::ssize(ids), past, part.sequence->cache.blocks()});
    wanted += part.logits;
  }
  const View h = scratch_.Alloc(DType::kF32, {std::ssize(ids), config().hidden_size});
  model_.decoder().Decode(ctx, model_.params(), ids, segments, pool_, h, [this] {
    if (stops_ && stops_()) throw Stopped();
  });
  if (drafter_) Observe(ctx, parts, h);
  for (const Part& part : parts) {
    part.sequence->cache.SetLength(part.sequence->length() + std::ssize(part.ids));
    part.sequence->ids.insert(part.sequence->ids.end(), part.ids.begin(), part.ids.end());
  }
  if (wanted == 0) return {};
  if (logits_.empty() || logits_.dim(0) < wanted) logits_ = Tensor(DType::kF32, {wanted, config().vocab_size});
  const View logits = logits_.mutable_view().Rows(0, wanted);
  model_.decoder().Logits(ctx, model_.params(), LogitRows(scratch_, parts, wanted, h), logits);
  return logits;
}

// Called before the tokens are counted as the sequences'.
void Engine::Observe(Ctx& ctx, std::span<const Part> parts, ConstView hidden) {
  int64_t row = 0;
  for (const Part& part : parts) {
    const int64_t count = std::ssize(part.ids), waiting = part.sequence->Waiting(config().hidden_size);
    if (waiting > 0 && waiting + count > kPassTokens) drafter_->CatchUp(ctx, {part.sequence, part.ids.front()});
    drafter_->Observe(ctx, *part.sequence, count, hidden.Rows(row, row + count));
    row += count;
  }
}

void Engine::TakeBack(Sequence& sequence, int64_t count) {
  if (drafter_) drafter_->Forget(sequence, count);
  sequence.cache.SetLength(sequence.length() - count);
  sequence.ids.resize(sequence.ids.size() - static_cast<size_t>(count));
}

// Drafts decide nothing but how many tokens a pass gives.
ConstView Engine::FirstDrafts(std::span<const NextToken> next, int64_t drafts) {
  Ctx ctx = Context(Arithmetic::kFastest);
  return drafter_->First(ctx, next, drafts);
}

ConstView Engine::NextDrafts(std::span<const NextToken> drafted) {
  Ctx ctx = Context(Arithmetic::kFastest);
  return drafter_->Next(ctx, drafted);
}

}  // namespace fathom

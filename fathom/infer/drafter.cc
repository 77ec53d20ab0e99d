#include "fathom/infer/drafter.h"

#include <algorithm>

namespace fathom {
namespace {

// Rows of a tensor that grows.
View Grown(Tensor& tensor, int64_t rows, int64_t columns) {
  if (tensor.empty() || tensor.dim(0) < rows) tensor = Tensor(DType::kF32, {rows, columns});
  return tensor.mutable_view().Rows(0, rows);
}

}  // namespace

Drafter::Drafter(const MappedModel& model, CachePool& pool)
    : model_(model), pool_(pool), hidden_(model.config().hidden_size), vocab_(model.config().vocab_size) {}

void Drafter::Observe(Ctx& ctx, Sequence& sequence, int64_t count, ConstView hidden) {
  const size_t at = sequence.waiting.size();
  sequence.waiting.resize(at + static_cast<size_t>(count * hidden_));
  const View states(reinterpret_cast<std::byte*>(sequence.waiting.data() + at), DType::kF32, {count, hidden_});
  model_.decoder().DraftState(ctx, model_.params(), model_.drafts().input, hidden, states);
}

void Drafter::Forget(Sequence& sequence, int64_t count) {
  FATHOM_CHECK(count <= sequence.Waiting(hidden_), "{} of {} tokens", count, sequence.Waiting(hidden_));
  sequence.waiting.resize(sequence.waiting.size() - static_cast<size_t>(count * hidden_));
}

// Row t of the module takes the state at t and the token at t+1, the last one `next`.
void Drafter::Enter(Ctx& ctx, std::span<const NextToken> next, bool predict) {
  ArenaScope scope(ctx.scratch);
  std::vector<int32_t> following;
  std::vector<CachedSegment> segments;
  for (const NextToken& n : next) {
    const int64_t count = n.sequence->Waiting(hidden_), begin = std::ssize(following), past = n.sequence->length() - count;
    FATHOM_CHECK(count > 0, "nothing was observed since the last draft");
    n.sequence->cache.Own(past, n.sequence->length());
    following.insert(following.end(), n.sequence->ids.end() - count + 1, n.sequence->ids.end());
    following.push_back(n.id);
    segments.push_back({begin, begin + count, past, n.sequence->cache.blocks()});
  }
  const View states = ctx.scratch.Alloc(DType::kF32, {std::ssize(following), hidden_}), h = ctx.scratch.Alloc(DType::kF32, states.shape());
  for (size_t i = 0; i < next.size(); ++i) {
    std::ranges::copy(next[i].sequence->waiting, states.row<float>(segments[i].begin));
    next[i].sequence->waiting.clear();
  }
  model_.decoder().Draft(ctx, model_.params(), following, states, segments, pool_, h);
  if (predict) Predict(ctx, h, segments);
}

// Logits and states after the last row of each segment.
void Drafter::Predict(Ctx& ctx, ConstView h, std::span<const CachedSegment> segments) {
  ArenaScope scope(ctx.scratch);
  const int64_t n = std::ssize(segments);
  const View last = ctx.scratch.Alloc(DType::kF32, {n, hidden_});
  for (int64_t i = 0; i < n; ++i) std::copy_n(h.row<float>(segments[static_cast<size_t>(i)].end - 1), hidden_, last.row<float>(i));
  model_.decoder().DraftLogits(ctx, model_.params(), model_.drafts().input, last, Grown(logits_, n, vocab_), Grown(states_, n, hidden_));
}

ConstView Drafter::First(Ctx& ctx, std::span<const NextToken> next, int64_t drafts) {
  for (const NextToken& n : next) n.sequence->cache.Own(n.sequence->length(), n.sequence->length() + drafts);
  Enter(ctx, next, true);
  chained_ = 0;
  return logits_.view().Rows(0, std::ssize(next));
}

ConstView Drafter::Next(Ctx& ctx, std::span<const NextToken> drafted) {
  ArenaScope scope(ctx.scratch);
  const int64_t n = std::ssize(drafted);
  std::vector<int32_t> ids;
  std::vector<CachedSegment> segments;
  for (const NextToken& d : drafted) {
    const int64_t row = std::ssize(ids);
    ids.push_back(d.id);
    segments.push_back({row, row + 1, d.sequence->length() + chained_, d.sequence->cache.blocks()});
  }
  ++chained_;
  const View h = ctx.scratch.Alloc(DType::kF32, {n, hidden_});
  model_.decoder().Draft(ctx, model_.params(), ids, states_.view().Rows(0, n), segments, pool_, h);
  Predict(ctx, h, segments);
  return logits_.view().Rows(0, n);
}

}  // namespace fathom

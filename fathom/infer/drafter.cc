#include "fathom/infer/drafter.h"

#include "fathom/kernels/elementwise/vector_ops.h"

namespace fathom {

Drafter::Drafter(const Decoder& decoder, const DecoderParams& params, MtpInput input, KvCache& cache)
    : decoder_(decoder),
      params_(params),
      input_(input),
      cache_(cache),
      states_(DType::kF32, {kChunk, decoder.config().hidden_size}),
      state_(DType::kF32, {1, decoder.config().hidden_size}),
      logits_(DType::kF32, {1, decoder.config().vocab_size}) {}

void Drafter::Reset() {
  ids_.clear();
  begin_ = 0;
}

void Drafter::Observe(Ctx& ctx, std::span<const int32_t> ids, ConstView hidden) {
  const auto count = static_cast<int64_t>(ids.size()), waiting = observed() - begin_;
  FATHOM_CHECK(count <= kChunk, "{} tokens at once", count);
  if (waiting + count > kChunk) CatchUp(ctx, ids.front(), {}, {});
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  const int64_t row = observed() - count - begin_;
  decoder_.DraftState(ctx, params_, input_, hidden, states_.mutable_view().Rows(row, row + count));
}

// Takes the positions that wait, the last of which `next` follows, into the module's cache.
void Drafter::CatchUp(Ctx& ctx, int32_t next, View logits, View state) {
  const int64_t rows = observed() - begin_;
  std::vector<int32_t> following(ids_.begin() + begin_ + 1, ids_.end());
  following.push_back(next);
  decoder_.Draft(ctx, params_, following, states_.view().Rows(0, rows), begin_, input_, cache_, logits, state);
  begin_ = observed();
}

std::span<const float> Drafter::First(Ctx& ctx, int32_t last) {
  FATHOM_CHECK(observed() > begin_, "nothing was observed since the last draft");
  CatchUp(ctx, last, logits_.mutable_view(), state_.mutable_view());
  chained_ = observed() - 1;
  return logits();
}

std::span<const float> Drafter::Next(Ctx& ctx, int32_t drafted) {
  decoder_.Draft(ctx, params_, {&drafted, 1}, state_, ++chained_, input_, cache_, logits_.mutable_view(), state_.mutable_view());
  return logits();
}

}  // namespace fathom

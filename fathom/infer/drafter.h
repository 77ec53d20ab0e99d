// Drafts of the next tokens with a checkpoint's MTP module (docs/layers/mtp.md), for several sequences at once. The module's layer of the
// cache follows the main model's: row t joins the main model's state at position t with token t+1.
#pragma once

#include <span>

#include "fathom/infer/mapped_model.h"
#include "fathom/infer/sequence.h"

namespace fathom {

class Drafter {
 public:
  // Both outlive the drafter. The model drafts.
  Drafter(const MappedModel& model, CachePool& pool);

  // The main model has appended `count` tokens to the sequence; hidden [count,D] F32 is its residual stream there.
  void Observe(Ctx& ctx, Sequence& sequence, int64_t count, ConstView hidden);
  // The last `count` tokens were taken back.
  void Forget(Sequence& sequence, int64_t count);
  // Enters the positions that wait into the module's layer.
  void CatchUp(Ctx& ctx, const NextToken& next) { Enter(ctx, {&next, 1}, false); }

  // Logits [n,V] for the tokens after `next`, which follow everything observed; room for `drafts` of them is made. Valid until the next
  // call.
  ConstView First(Ctx& ctx, std::span<const NextToken> next, int64_t drafts);
  // Logits for the tokens after those, if `drafted` were taken, for the last call's sequences: chained to the states of the drafts before.
  ConstView Next(Ctx& ctx, std::span<const NextToken> drafted);

 private:
  void Enter(Ctx& ctx, std::span<const NextToken> next, bool predict);
  void Predict(Ctx& ctx, ConstView h, std::span<const CachedSegment> segments);

  const MappedModel& model_;
  CachePool& pool_;
  int64_t hidden_, vocab_;
  int64_t chained_ = 0;     // drafts so far, behind each sequence's last token
  Tensor states_, logits_;  // [n,D], [n,V] F32 after them, of the sequences that are drafted for
};

}  // namespace fathom

// Drafts of the next tokens with a checkpoint's MTP module (docs/layers/mtp.md). Its layer of the cache follows the main model's: row t
// joins the main model's state at position t with token t+1.
#pragma once

#include <span>
#include <vector>

#include "fathom/model/decoder.h"

namespace fathom {

class Drafter {
 public:
  // decoder, params and cache outlive the drafter. cache has a layer for the module behind the main ones.
  Drafter(const Decoder& decoder, const DecoderParams& params, MtpInput input, KvCache& cache);

  // Forgets the sequence.
  void Reset();
  // The main model has taken in these tokens for good; hidden [M,D] F32 is its residual stream there. M is at most kChunk.
  void Observe(Ctx& ctx, std::span<const int32_t> ids, ConstView hidden);
  // Logits [V] for the token after `last`, which follows everything observed; valid until the next call.
  std::span<const float> First(Ctx& ctx, int32_t last);
  // Logits for the token after that one, if `drafted` was taken: chained to the state of the draft before.
  std::span<const float> Next(Ctx& ctx, int32_t drafted);

  static constexpr int64_t kChunk = 512;

 private:
  int64_t observed() const { return std::ssize(ids_); }
  std::span<const float> logits() const { return {logits_.data<float>(), static_cast<size_t>(logits_.NumElements())}; }
  void CatchUp(Ctx& ctx, int32_t next, View logits, View state);

  const Decoder& decoder_;
  const DecoderParams& params_;
  MtpInput input_;
  KvCache& cache_;
  std::vector<int32_t> ids_;  // all tokens observed
  Tensor states_;             // [kChunk,D] F32 of positions begin_ and on: those that wait to enter the module's cache
  int64_t begin_ = 0;
  int64_t chained_ = 0;  // position of the last draft
  Tensor state_;         // [1,D] F32 after it
  Tensor logits_;        // [1,V] F32
};

}  // namespace fathom

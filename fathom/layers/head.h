// The end of the model: final norm, language model head, cross entropy. Logits exist for one chunk of tokens at a time, forward and
// backward together (docs/layers/head_loss.md).
#pragma once

#include <span>

#include "fathom/kernels/head/cross_entropy.h"
#include "fathom/layers/context.h"

namespace fathom {

struct HeadParams {
  const Weight& norm;     // [D]
  const Weight& lm_head;  // [V,D]
};
struct HeadGrads {
  Weight& norm;
  Weight& lm_head;
};

class Head {
 public:
  Head(int64_t vocab, float eps) : vocab_(vocab), eps_(eps) {}

  // Tokens per chunk, so that a chunk of logits stays near 16 MB.
  int64_t ChunkTokens() const;

  // x [T,D] = norm(h), in the compute dtype.
  void Normalize(Ctx& ctx, const HeadParams& p, ConstView h, View x, View rstd) const;
  // logits [T,V] F32, overwritten, from normed x.
  void Logits(Ctx& ctx, const HeadParams& p, ConstView x, View logits) const;
  // The same from the residual stream h [T,D] F32.
  void StreamLogits(Ctx& ctx, const HeadParams& p, ConstView h, View logits) const;
  // The most likely token at each position, ties to the lower index: overwrites best [T].
  void Predict(Ctx& ctx, const HeadParams& p, ConstView x, std::span<int32_t> best) const;
  // Sums only. nll [T] as in CrossEntropy, may be empty.
  CrossEntropySums Loss(Ctx& ctx, const HeadParams& p, ConstView x, const LossTargets& targets, std::span<float> nll) const;
  // Sums and gradients: overwrites dx [T,D] F32 (of the normed x), adds to grad.lm_head.
  CrossEntropySums LossAndGradient(Ctx& ctx, const HeadParams& p, ConstView x, const LossTargets& targets, View dx, HeadGrads grad) const;
  // What was normed, and what Normalize made of it.
  struct Normed {
    ConstView h, rstd;
  };
  // dh [T,D] F32: overwritten, or added to.
  void BackwardNorm(Ctx& ctx, const HeadParams& p, ConstView dx, const Normed& normed, View dh, bool add, HeadGrads grad) const;

 private:
  // f(begin, rows, logits) for the tokens begin, begin + 1, ...: their rows of x, and logits that live until f returns.
  template <class F>
  void ForChunks(Ctx& ctx, const HeadParams& p, ConstView x, const F& f) const;

  int64_t vocab_;
  float eps_;
};

}  // namespace fathom

#include "fathom/layers/head.h"

#include <algorithm>

#include "fathom/base/threads.h"
#include "fathom/base/trace.h"
#include "fathom/kernels/head/sampling.h"
#include "fathom/kernels/norm/rms_norm.h"
#include "fathom/layers/linear.h"
#include "fathom/tensor/traced_bytes.h"

namespace fathom {
namespace {

constexpr int64_t kChunkBytes = 16 << 20;

}  // namespace

int64_t Head::ChunkTokens() const { return std::max<int64_t>(16, kChunkBytes / (4 * vocab_) / 16 * 16); }

void Head::Normalize(Ctx&, const HeadParams& p, ConstView h, View x, View rstd) const { RmsNormForward(h, p.norm.value, eps_, x, rstd); }

void Head::Logits(Ctx& ctx, const HeadParams& p, ConstView x, View logits) const { ExactLinearForward(ctx, p.lm_head, x, logits); }

void Head::StreamLogits(Ctx& ctx, const HeadParams& p, ConstView h, View logits) const {
  ArenaScope scope(ctx.scratch);
  const View x = ctx.scratch.Alloc(ctx.compute, h.shape());
  Normalize(ctx, p, h, x, {});
  Logits(ctx, p, x, logits);
}

template <class F>
void Head::ForChunks(Ctx& ctx, const HeadParams& p, ConstView x, const F& f) const {
  const int64_t tokens = x.dim(0), chunk = ChunkTokens();
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    ArenaScope scope(ctx.scratch);
    const ConstView rows = x.Rows(begin, std::min(begin + chunk, tokens));
    const View logits = ctx.scratch.Alloc(DType::kF32, {rows.dim(0), vocab_});
    Logits(ctx, p, rows, logits);
    f(begin, rows, logits);
  }
}

void Head::Predict(Ctx& ctx, const HeadParams& p, ConstView x, std::span<int32_t> best) const {
  ForChunks(ctx, p, x, [&](int64_t begin, ConstView rows, View logits) {
    ParallelRanges(rows.dim(0), 1, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t)
        best[static_cast<size_t>(begin + t)] = ArgMax({logits.row<float>(t), static_cast<size_t>(vocab_)});
    });
  });
}

CrossEntropySums Head::Loss(Ctx& ctx, const HeadParams& p, ConstView x, const LossTargets& t, std::span<float> nll) const {
  CrossEntropySums total;
  ForChunks(ctx, p, x, [&](int64_t begin, ConstView rows, View logits) {
    const auto part = nll.empty() ? nll : nll.subspan(static_cast<size_t>(begin), static_cast<size_t>(rows.dim(0)));
    TraceSlice slice("cross entropy");
    AddBytes(slice, {logits});
    total += CrossEntropy(logits, t.Part(begin, begin + rows.dim(0)), {}, part);
  });
  return total;
}

CrossEntropySums Head::LossAndGradient(Ctx& ctx, const HeadParams& p, ConstView x, const LossTargets& t, View dx, HeadGrads grad) const {
  CrossEntropySums total;
  ForChunks(ctx, p, x, [&](int64_t begin, ConstView rows, View logits) {
    const int64_t end = begin + rows.dim(0);
    const View d_logits = ctx.compute == DType::kF32 ? logits : ctx.scratch.Alloc(ctx.compute, logits.shape());
    {
      TraceSlice slice("cross entropy");
      AddBytes(slice, {logits, d_logits});
      total += CrossEntropy(logits, t.Part(begin, end), d_logits, {});
    }
    ExactLinearBackward(ctx, p.lm_head, rows, d_logits, dx.Rows(begin, end), Write::kOverwrite, grad.lm_head);
  });
  return total;
}

void Head::BackwardNorm(Ctx& ctx, const HeadParams& p, ConstView dx, const Normed& normed, View dh, bool add, HeadGrads grad) const {
  RmsNormBackward(dx, normed.h, p.norm.value, normed.rstd, {dh, add, GradView(grad.norm)}, ctx.scratch);
}

}  // namespace fathom

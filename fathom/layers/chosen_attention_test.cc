// The forms of attention over chosen keys: which one is taken, and that all of them are the same attention.
#include "fathom/layers/chosen_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "fathom/base/plan_scope.h"
#include "fathom/base/threads.h"
#include "fathom/layers/attention_cost.h"
#include "fathom/layers/linear.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

// ---- the cost rule

constexpr MlaShape kV32{128, 128, 64, 128, 0.07f};
constexpr FormRates kRates{1, 30000, 10000};
ChosenWork V32Block(int64_t heads = 128) {
  MlaShape s = kV32;
  s.heads = heads;
  return {s, 512, 256, 256 * 2048};
}

TEST(AttentionCost, FollowsTheArithmetic) {
  // Per key 1088 multiply-adds against 320: with nothing else to pay, 3.4 times as many keys may be shared.
  const int64_t rows = MostSharedRows({1, 0, 0}, AttentionPass::kForward, V32Block());
  EXPECT_NEAR(static_cast<double>(rows), 2048 * 1088.0 / 320 + 512 * 256 / 320.0, 2);
}

TEST(AttentionCost, TheMachinesFiguresDecide) {
  const auto most = [](const FormRates& r, const ChosenWork& w) { return MostSharedRows(r, AttentionPass::kForward, w); };
  EXPECT_GT(most({1.5, 30000, 10000}, V32Block()), most(kRates, V32Block()));  // slow products of the absorbed form
  EXPECT_GT(most({1, 60000, 10000}, V32Block()), most(kRates, V32Block()));    // slow gathering
  EXPECT_LT(most({1, 30000, 50000}, V32Block()), most(kRates, V32Block()));    // slow loading of keys
}

TEST(AttentionCost, SizesDecide) {
  const auto most = [](const ChosenWork& w) { return MostSharedRows(kRates, AttentionPass::kForward, w); };
  // Below the cross-over every key may be shared, above it not all of them.
  EXPECT_GT(most(V32Block()), 4096);
  EXPECT_LT(most(V32Block()), 16384);
  // Few heads pay more for gathering; a few queries have little to share; keys that must be expanded first cost more.
  EXPECT_GT(most(V32Block(4)), most(V32Block()));
  EXPECT_LT(most({kV32, 512, 9, 9 * 2048}), 2048);
  ChosenWork unexpanded = V32Block();
  unexpanded.expansions = 0.5;
  EXPECT_LT(most(unexpanded), most(V32Block()));
  EXPECT_GE(AbsorbedCost(kRates, AttentionPass::kForward, V32Block()),
            SharedCost(kRates, AttentionPass::kForward, V32Block(), most(V32Block())));
}

// With the figures that are written down: up to twice index_topk every key may be shared whatever the heads and the pass, and with many
// heads no more than about four times as many as a query chooses, so that what sparse attention costs stops growing.
TEST(AttentionCost, TheWrittenFiguresKeepShortContextsSharedAndLongOnesFlat) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t heads : {16, 32, 128}) {
      EXPECT_GT(MostSharedRows(MeasuredRates(dtype, AttentionPass::kForward), AttentionPass::kForward, V32Block(heads)), 4096);
      ChosenWork block = V32Block(heads);
      block.queries = 512;
      block.chosen = 512 * 2048;
      EXPECT_GT(MostSharedRows(MeasuredRates(dtype, AttentionPass::kBackward), AttentionPass::kBackward, block), 8192);
    }
    EXPECT_LT(MostSharedRows(MeasuredRates(dtype, AttentionPass::kForward), AttentionPass::kForward, V32Block()), 8192);
  }
}

// ---- the forms

constexpr MlaShape kShape{3, 16, 8, 12, 0.2f};
constexpr int64_t kRank = 24, kWidth = kRank + 8, kTopK = 20, kTokens = 620;
const std::vector<Segment> kSegments{{2, 40, 2, 40}, {40, 340, 40, 340}, {341, 600, 341, 600}};

std::vector<int32_t> SomeChoice(std::span<const Segment> segments, int64_t tokens) {
  std::vector<int32_t> chosen(static_cast<size_t>(tokens * kTopK), -1);
  for (const Segment& s : segments) {
    for (int64_t t = s.q_begin; t < s.q_end; ++t) {
      const int64_t visible = s.k_end - (s.q_end - 1 - t) - s.k_begin, n = std::min(kTopK, visible);
      for (int64_t i = 0; i < n; ++i)
        chosen[static_cast<size_t>(t * kTopK + i)] = static_cast<int32_t>(s.k_begin + (i + 1) * visible / n - 1);
    }
  }
  return chosen;
}

Tensor Random(DType dtype, Shape shape, uint64_t seed) {
  Tensor f32 = RandomTensor(shape, seed);
  if (dtype == DType::kF32) return f32;
  Tensor x(dtype, shape);
  Cast(f32, x.mutable_view());
  return x;
}
std::vector<float> Floats(ConstView x) {
  Tensor f32(DType::kF32, x.shape());
  Cast(x, f32.mutable_view());
  return {f32.data<float>(), f32.data<float>() + f32.NumElements()};
}

// Everything that the two passes give, the gradients of latents and of kv_b_proj as the layer sums them.
struct Results {
  std::vector<float> o, lse, dq, d_latent, d_rope, d_weight;
};
Results RunTraining(ChosenForm form, DType compute, Arena scratch) {
  const int64_t kv_width = kShape.heads * (kShape.nope_dim + kShape.v_dim), q_width = kShape.heads * (kShape.nope_dim + kShape.rope_dim);
  Arena saved(1 << 20);
  Ctx ctx{saved, scratch, compute};
  Weight w{Random(compute, {kv_width, kRank}, 1), {}, {}};
  const Tensor q = Random(compute, {kTokens, q_width}, 2), latent = Random(compute, {kTokens, kRank}, 3),
               k_rope = Random(compute, {kTokens, kShape.rope_dim}, 4), d_o = Random(compute, {kTokens, kShape.heads * kShape.v_dim}, 5);
  Tensor kv(compute, {kTokens, kv_width}), o(compute, d_o.shape()), lse(DType::kF32, {kTokens, kShape.heads}), dq(compute, q.shape()),
      dkv(compute, kv.shape()), d_rows(DType::kF32, {kTokens, kWidth}), d_latent(DType::kF32, latent.shape());
  LinearForward(ctx, w, latent, kv.mutable_view());
  const auto chosen = SomeChoice(kSegments, kTokens);
  const ChosenAttention a{kShape, w, kSegments, {chosen, kTopK}, form, {q, kv, k_rope}, latent};
  Weight grad{Tensor(DType::kF32, w.value.shape()), {}, {}};
  ChosenAttentionForward(ctx, a, o.mutable_view(), lse.mutable_view());
  ChosenAttentionBackward(ctx, a, {o, lse, d_o}, {dq.mutable_view(), dkv.mutable_view(), d_rows.mutable_view()}, grad);
  LinearBackward(ctx, w, latent, dkv, d_latent.mutable_view(), Write::kOverwrite, grad);
  AddScaled(1, d_rows.view().Cols(0, kRank), d_latent.mutable_view());
  return {Floats(o), Floats(lse), Floats(dq), Floats(d_latent), Floats(d_rows.view().Cols(kRank, kWidth)), Floats(grad.value)};
}

TEST(ChosenAttention, FormsAgree) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const double bound = compute == DType::kF32 ? 1e-5 : 2e-2;
    const Results want = RunTraining(ChosenForm::kAbsorbed, compute, DirtyArena(64 << 20));
    for (const ChosenForm form : {ChosenForm::kShared, ChosenForm::kCheapest}) {
      const Results r = RunTraining(form, compute, DirtyArena(64 << 20));
      EXPECT_TRUE(RelativeL2(r.o, ToDoubles(want.o), bound));
      EXPECT_TRUE(Close(r.lse, ToDoubles(want.lse), compute == DType::kF32 ? 1e-5 : 0.1, 1e-6));
      EXPECT_TRUE(RelativeL2(r.dq, ToDoubles(want.dq), bound));
      EXPECT_TRUE(RelativeL2(r.d_latent, ToDoubles(want.d_latent), bound));
      EXPECT_TRUE(RelativeL2(r.d_rope, ToDoubles(want.d_rope), bound));
      EXPECT_TRUE(RelativeL2(r.d_weight, ToDoubles(want.d_weight), bound));
    }
  }
}

// Queries at the end of a sequence whose blocks lie in falling order.
struct Cached {
  static constexpr int64_t kLength = 500, kQueries = 300, kRows = 1 + kQueries, kBlocks = (kLength + kCacheBlock - 1) / kCacheBlock;
  explicit Cached(DType dtype) : compute(dtype) { std::iota(blocks.rbegin(), blocks.rend(), 0); }

  void Run(ChosenForm form, Arena& scratch) {
    Arena saved(1 << 20);
    Ctx ctx{saved, scratch, compute};
    const std::vector<BlockTable> tables(kRows, blocks);
    const std::vector<int64_t> visible(kRows, kLength);
    const CachedSegment segment{1, kRows, kLength - kQueries, blocks};
    const Segment all{1, kRows, 0, kLength};
    const auto chosen = SomeChoice({&all, 1}, kRows);
    const CachedRows rows{{&segment, 1}, {}, visible, tables};
    Fill(std::numeric_limits<float>::quiet_NaN(), o.mutable_view().Rows(1, kRows));
    ChosenAttentionCached(ctx, {kShape, w, rows, segment, {chosen, kTopK}, form, cache}, q, o.mutable_view());
  }

  DType compute;
  Weight w{Random(compute, {kShape.heads * (kShape.nope_dim + kShape.v_dim), kRank}, 1), {}, {}};
  Tensor q = Random(compute, {kRows, kShape.heads*(kShape.nope_dim + kShape.rope_dim)}, 2),
         cache = Random(compute, {kBlocks * kCacheBlock, kWidth}, 3), o{compute, {kRows, kShape.heads*kShape.v_dim}};
  std::vector<int32_t> blocks = std::vector<int32_t>(kBlocks);
};

TEST(ChosenAttention, CachedFormsAgree) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    Cached c(compute);
    Arena scratch = DirtyArena(64 << 20);
    c.Run(ChosenForm::kAbsorbed, scratch);
    const auto want = ToDoubles(Floats(c.o));
    for (const ChosenForm form : {ChosenForm::kShared, ChosenForm::kCheapest}) {
      c.Run(form, scratch);
      EXPECT_TRUE(RelativeL2(Floats(c.o), want, compute == DType::kF32 ? 1e-5 : 2e-2));
    }
  }
}

TEST(ChosenAttention, MemoryIsAtMostThatOfThePlan) {
  Cached c(DType::kF32);
  for (const ChosenForm form : {ChosenForm::kAbsorbed, ChosenForm::kShared, ChosenForm::kCheapest}) {
    Arena real = DirtyArena(64 << 20), counted = Arena::Counting();
    const int64_t before = real.peak();
    c.Run(form, real);
    {
      const PlanScope plan(NumThreads());
      c.Run(form, counted);
    }
    EXPECT_LE(real.peak(), std::max(before, counted.peak()));
  }
}

}  // namespace
}  // namespace fathom

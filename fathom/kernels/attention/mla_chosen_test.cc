#include "fathom/kernels/attention/mla_chosen.h"

#include <gtest/gtest.h>

#include <limits>

#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/kernels/attention/mla_chosen_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/close.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
using Inputs = ref::MlaInputs<double>;

// Queries of documents, cut into blocks of `block`; rows outside them are NaN.
struct Case {
  MlaShape shape;
  std::vector<Segment> segments;
  int64_t tokens, keys, k, block;
};
std::vector<Case> Cases() {
  return {
      {{1, 1, 1, 1, 0.7f}, {{0, 1, 0, 1}}, 1, 1, 1, 256},
      {{3, 5, 2, 7, 0.4f}, {{1, 2, 1, 2}, {2, 27, 2, 27}, {29, 40, 29, 40}}, 43, 43, 4, 10},
      {{2, 16, 8, 16, 0.2f}, {{0, 129, 0, 129}, {129, 300, 129, 300}}, 300, 300, 40, 64},
      {{2, 17, 6, 33, 0.25f}, {{0, 100, 0, 360}, {100, 120, 0, 120}}, 121, 361, 30, 256},  // later queries of longer contexts, keys shared
      {{37, 3, 2, 3, 0.5f}, {{0, 9, 0, 9}}, 9, 9, 3, 4},                                   // more heads than groups
      {{2, 128, 64, 128, 0.0722f}, {{3, 100, 3, 100}}, 101, 101, 70, 65},
  };
}

// Lists with far and near keys: the first ones of a document for all, then every step-th of the last ones.
std::vector<int32_t> SomeChoice(const Case& c) {
  std::vector<int32_t> chosen(static_cast<size_t>(c.tokens * c.k), -1);
  const auto visible = ref::VisibleKeys(c.segments, c.tokens);
  for (int64_t t = 0; t < c.tokens; ++t) {
    const auto& keys = visible[static_cast<size_t>(t)];
    const int64_t n = std::min<int64_t>(c.k, std::ssize(keys)), step = 1 + t % 3;
    std::vector<int32_t> list;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t far = std::ssize(keys) - 1 - step * i;
      list.push_back(keys[static_cast<size_t>(i < n / 4 || far <= n ? i : far)]);
    }
    std::ranges::sort(list);
    list.erase(std::ranges::unique(list).begin(), list.end());
    std::ranges::copy(list, chosen.begin() + t * c.k);
  }
  return chosen;
}

std::vector<SharedKeys> Blocks(const Case& c, std::span<const int32_t> chosen, int64_t queries, Arena& arena) {
  std::vector<SharedKeys> blocks;
  for (const Segment& s : c.segments) {
    for (int64_t t = s.q_begin; t < s.q_end; t += queries) {
      const int64_t end = std::min(s.q_end, t + queries);
      blocks.push_back(AllocSharedKeys(arena, t, end, s.k_end - s.k_begin));
    }
  }
  UniteKeys({chosen, c.k}, c.keys, blocks, arena);
  return blocks;
}

struct Data {
  Inputs in;
  std::vector<double> d_o;
};
Data MakeData(const Case& c, bool bf16) {
  const MlaShape& s = c.shape;
  Data d{{RandomVector(c.tokens * s.heads * (s.nope_dim + s.rope_dim), 1), RandomVector(c.keys * s.heads * (s.nope_dim + s.v_dim), 2),
          RandomVector(c.keys * s.rope_dim, 3)},
         RandomVector(c.tokens * s.heads * s.v_dim, 4)};
  for (auto* v : {&d.in.q, &d.in.kv, &d.in.k_rope, &d.d_o}) {
    for (double& x : *v) x = bf16 ? RoundToBF16(static_cast<float>(x)) : static_cast<float>(x);
  }
  return d;
}

struct Results {
  std::vector<float> o, lse, dq, dkv, dk_rope, top;
  std::vector<float> All() const {
    std::vector<float> all;
    for (const auto* v : {&o, &lse, &dq, &dkv, &dk_rope}) all.insert(all.end(), v->begin(), v->end());
    return all;
  }
};

// Keys that nobody chose, and queries outside the segments, are NaN in the inputs; gradients of keys start at 0.5 and dk_rope at 2.
template <class T>
Results RunKernels(const Case& c, const Data& d, std::span<const int32_t> chosen) {
  const MlaShape& s = c.shape;
  const int64_t width = s.nope_dim + s.rope_dim, kv_width = s.heads * (s.nope_dim + s.v_dim);
  std::vector<double> q = d.in.q, kv = d.in.kv, k_rope = d.in.k_rope, d_o = d.d_o;
  const auto lists = ref::ChosenKeys({chosen, c.k});
  std::vector<bool> used(static_cast<size_t>(c.keys));
  for (const auto& list : lists) {
    for (const int32_t row : list) used[static_cast<size_t>(row)] = true;
  }
  for (int64_t j = 0; j < c.keys; ++j) {
    if (used[static_cast<size_t>(j)]) continue;
    std::fill_n(kv.begin() + j * kv_width, kv_width, kNaN);
    std::fill_n(k_rope.begin() + j * s.rope_dim, s.rope_dim, kNaN);
  }
  for (int64_t t = 0; t < c.tokens; ++t) {
    if (!lists[static_cast<size_t>(t)].empty()) continue;
    std::fill_n(q.begin() + t * s.heads * width, s.heads * width, kNaN);
    std::fill_n(d_o.begin() + t * s.heads * s.v_dim, s.heads * s.v_dim, kNaN);
  }
  PaddedMatrix<T> q_in(c.tokens, s.heads * width, 3, 1, q), kv_in(c.keys, kv_width, 3, 1, kv), rope_in(c.keys, s.rope_dim, 3, 1, k_rope),
      d_o_in(c.tokens, s.heads * s.v_dim, 3, 1, d_o);
  const std::vector<double> zeros(static_cast<size_t>(c.tokens * s.heads * std::max(width, s.v_dim)), 0),
      halves(static_cast<size_t>(c.keys * kv_width), 0.5), twos(static_cast<size_t>(c.keys * s.rope_dim), 2);
  PaddedMatrix<T> o(c.tokens, s.heads * s.v_dim, 3, 1, zeros), dq(c.tokens, s.heads * width, 3, 1, zeros),
      dkv(c.keys, kv_width, 3, 1, halves);
  PaddedMatrix<float> lse(c.tokens, s.heads, 3, 1, zeros), top(c.tokens, s.heads, 3, 1, zeros), dk_rope(c.keys, s.rope_dim, 3, 1, twos);
  Arena scratch = DirtyArena(int64_t{256} << 20);
  const std::vector<SharedKeys> blocks = Blocks(c, chosen, c.block, scratch), wide = Blocks(c, chosen, 2 * c.block, scratch);
  const MlaInputs in{q_in.view(), kv_in.view(), rope_in.view()};
  MlaChosenForward(s, blocks, in, o.view(), lse.view(), scratch, top.view());
  MlaChosenBackward(s, wide, in, {o.view(), lse.view(), d_o_in.view()}, {dq.view(), dkv.view(), dk_rope.view()}, scratch);
  for (const auto& ok :
       {o.PaddingUntouched(), lse.PaddingUntouched(), dq.PaddingUntouched(), dkv.PaddingUntouched(), dk_rope.PaddingUntouched()}) {
    EXPECT_TRUE(ok);
  }
  Results r{o.Floats(), lse.Floats(), dq.Floats(), dkv.Floats(), dk_rope.Floats(), top.Floats()};
  for (float& x : r.dkv) x -= 0.5f;
  for (float& x : r.dk_rope) x -= 2;
  return r;
}

TEST(MlaChosen, MatchesReferenceOnEveryTarget) {
  for (const Case& c : Cases()) {
    const auto chosen = SomeChoice(c);
    const auto keys = ref::ChosenKeys({chosen, c.k});
    for (const bool bf16 : {false, true}) {
      const Data d = MakeData(c, bf16);
      const auto want = ref::MlaForward(c.shape, keys, d.in);
      std::vector<double> top = ref::MlaLargestScores(c.shape, keys, d.in);
      std::ranges::replace_if(
          top, [](double x) { return std::isinf(x); }, 0);  // rows of no query
      const Inputs gradient = ref::MlaBackward(c.shape, keys, d.in, d.d_o);
      ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
        const Results r = bf16 ? RunKernels<BF16>(c, d, chosen) : RunKernels<float>(c, d, chosen);
        const double bound = bf16 ? 8e-3 : 2e-6;
        EXPECT_TRUE(RelativeL2(r.o, want.o, bound));
        EXPECT_TRUE(Close(r.lse, want.lse, 2e-6, 2e-6));
        EXPECT_TRUE(Close(r.top, top, 2e-6, 2e-6));
        EXPECT_TRUE(RelativeL2(r.dq, gradient.q, bound));
        EXPECT_TRUE(RelativeL2(r.dkv, gradient.kv, bound));
        EXPECT_TRUE(RelativeL2(r.dk_rope, gradient.k_rope, bound));
      });
    }
  }
}

TEST(MlaChosen, SameBitsForAnyNumberOfThreads) {
  const Case c = Cases()[2];
  const auto chosen = SomeChoice(c);
  const Data d = MakeData(c, false);
  ExpectSameForAnyThreads([&] { return RunKernels<float>(c, d, chosen).All(); });
}

// Where every query has chosen all that it sees.
TEST(MlaChosen, AllKeysChosenIsDenseAttention) {
  const Case c{{2, 24, 8, 20, 0.2f}, {{0, 200, 0, 200}}, 200, 200, 200, 200};
  const Data d = MakeData(c, false);
  std::vector<int32_t> chosen(200 * 200, -1);
  for (int32_t t = 0; t < 200; ++t) {
    for (int32_t j = 0; j <= t; ++j) chosen[static_cast<size_t>(t * 200 + j)] = j;
  }
  const auto want = ref::MlaForward(c.shape, ref::VisibleKeys(c.segments, 200), d.in);
  EXPECT_TRUE(RelativeL2(RunKernels<float>(c, d, chosen).o, want.o, 2e-6));
}

TEST(SharedKeys, AreTheUnionOfTheQueriesLists) {
  const Case c = Cases()[3];
  const auto chosen = SomeChoice(c);
  const Choice choice{chosen, c.k};
  Arena arena(1 << 24);
  for (const SharedKeys& block : Blocks(c, chosen, c.block, arena)) {
    std::vector<std::vector<int32_t>> lists(static_cast<size_t>(block.end - block.begin));
    for (int64_t j = 0; j < block.count(); ++j) {
      if (j > 0) {
        EXPECT_LT(block.Row(j - 1), block.Row(j));
      }
      bool anybody = false;
      for (int64_t i = 0; i < 64 * block.Words(); ++i) {
        if ((block.masks[static_cast<size_t>(j * block.Words() + i / 64)] >> i % 64 & 1) == 0) continue;
        ASSERT_LT(i, block.end - block.begin);
        lists[static_cast<size_t>(i)].push_back(static_cast<int32_t>(block.Row(j)));
        anybody = true;
      }
      EXPECT_TRUE(anybody);
    }
    for (int64_t t = block.begin; t < block.end; ++t)
      EXPECT_TRUE(std::ranges::equal(lists[static_cast<size_t>(t - block.begin)], choice.Of(t)));
  }
}

TEST(SharedKeys, ThatDoNotFitAreNone) {
  const std::vector<int32_t> chosen{0, 1, 2, 5};
  Arena arena(1 << 20);
  std::vector<SharedKeys> blocks{AllocSharedKeys(arena, 0, 2, 3), AllocSharedKeys(arena, 0, 2, 4)};
  UniteKeys({chosen, 2}, 6, blocks, arena);
  EXPECT_EQ(blocks[0].count(), 0);
  EXPECT_EQ(blocks[1].count(), 4);
}

}  // namespace
}  // namespace fathom

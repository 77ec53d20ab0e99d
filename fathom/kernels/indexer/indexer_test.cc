#include "fathom/kernels/indexer/indexer.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fathom/base/threads.h"
#include "fathom/kernels/indexer/indexer_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/close.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  IndexerShape shape;
  std::vector<Segment> segments;
  int64_t tokens, keys, top_k;
};
std::vector<Case> Cases() {
  return {
      {{1, 1}, {{0, 1, 0, 1}}, 1, 1, 1},
      {{3, 5}, {{1, 2, 1, 2}, {2, 20, 2, 20}}, 23, 21, 4},
      {{4, 32}, {{0, 100, 0, 100}, {100, 140, 100, 140}}, 140, 141, 16},
      {{20, 17}, {{0, 3, 0, 300}, {3, 4, 300, 430}}, 4, 430, 64},
      {{64, 128}, {{0, 1, 0, 200}}, 1, 200, 32},
  };
}

// Small whole numbers: every sum is exact in F32 and BF16, and many scores are equal.
ref::IndexerInputs<double> WholeNumbers(const Case& c) {
  ref::IndexerInputs<double> in{RandomVector(c.tokens * c.shape.heads * c.shape.head_dim, 1), RandomVector(c.keys * c.shape.head_dim, 2),
                                RandomVector(c.tokens * c.shape.heads, 3)};
  for (auto* v : {&in.q, &in.k, &in.weights}) {
    for (double& x : *v) x = std::round(x);
  }
  return in;
}

struct Choice {
  std::vector<int32_t> chosen;
  std::vector<float> scores;
  bool finite = true;
};

template <class T>
std::vector<T> Convert(std::span<const double> x) {
  std::vector<T> out;
  for (const double v : x) out.push_back(FromFloat<T>(static_cast<float>(v)));
  return out;
}

// Rows of k outside every segment are NaN.
template <class T>
Choice Choose(const Case& c, const ref::IndexerInputs<double>& in, bool with_scores) {
  auto q = Convert<T>(in.q), k = Convert<T>(in.k);
  const auto weights = ToFloats(in.weights);
  for (int64_t j = 0; j < c.keys; ++j) {
    const bool used = std::any_of(c.segments.begin(), c.segments.end(), [&](const Segment& s) { return s.k_begin <= j && j < s.k_end; });
    if (!used) std::fill_n(k.begin() + j * c.shape.head_dim, c.shape.head_dim, FromFloat<T>(kNaN));
  }
  Choice out{std::vector<int32_t>(static_cast<size_t>(c.tokens * c.top_k), 77),
             std::vector<float>(static_cast<size_t>(c.tokens * c.top_k), kNaN)};
  Arena scratch = DirtyArena(int64_t{256} << 20);
  const IndexerInputs inputs{c.shape, ViewOf(std::as_const(q).data(), {c.tokens, c.shape.heads * c.shape.head_dim}),
                             ViewOf(std::as_const(k).data(), {c.keys, c.shape.head_dim}),
                             ViewOf(weights.data(), {c.tokens, c.shape.heads})};
  out.finite =
      IndexerTopK(inputs, c.segments, c.top_k, out.chosen, with_scores ? ViewOf(out.scores.data(), {c.tokens, c.top_k}) : View(), scratch);
  return out;
}

using Scores = std::vector<std::vector<double>>;  // of the keys that each query sees

Scores AllScores(const Case& c, const ref::IndexerInputs<double>& in) {
  Scores scores;
  for (const auto& keys : ref::VisibleKeys(c.segments, c.tokens)) {
    const int64_t t = std::ssize(scores);
    scores.emplace_back();
    for (const int32_t key : keys) scores.back().push_back(ref::IndexerScore(c.shape, in, t, key));
  }
  return scores;
}

void ExpectBest(const Case& c, const Scores& scores, const Choice& got, bool with_scores) {
  const auto keys = ref::VisibleKeys(c.segments, c.tokens);
  for (size_t t = 0; t < keys.size(); ++t) {
    std::vector<int32_t> want = ref::BestKeys(scores[t], keys[t], c.top_k);
    const size_t count = want.size();
    want.resize(static_cast<size_t>(c.top_k), -1);
    const auto* row = got.chosen.data() + static_cast<int64_t>(t) * c.top_k;
    ASSERT_EQ(std::vector<int32_t>(row, row + c.top_k), want) << "query " << t;
    for (size_t i = 0; with_scores && count > 0 && i < want.size(); ++i) {
      const double expected = i < count ? scores[t][static_cast<size_t>(want[i] - keys[t][0])] : -kInfinity;
      ASSERT_EQ(got.scores[t * want.size() + i], expected) << "query " << t;
    }
  }
}

TEST(IndexerTopK, ChoosesTheBestOnEveryTarget) {
  for (const Case& c : Cases()) {
    const auto in = WholeNumbers(c);
    const Scores scores = AllScores(c, in);
    ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
      for (const bool with_scores : {false, true}) {
        ExpectBest(c, scores, Choose<float>(c, in, with_scores), with_scores);
        ExpectBest(c, scores, Choose<BF16>(c, in, with_scores), with_scores);
      }
    });
  }
}

// Every segment's keys lie in blocks of its own, apart and in falling order; other rows are NaN. Keys are counted from the segment's first.
template <class T>
Choice ChooseInBlocks(const Case& c, const ref::IndexerInputs<double>& in, bool with_scores) {
  const auto q = Convert<T>(in.q), flat = Convert<T>(in.k);
  const auto weights = ToFloats(in.weights);
  const int64_t dim = c.shape.head_dim;
  int64_t used = 0;
  for (const Segment& s : c.segments) used += (s.k_end - s.k_begin + kCacheBlock - 1) / kCacheBlock;
  std::vector<T> k(static_cast<size_t>(2 * used * kCacheBlock * dim), FromFloat<T>(kNaN));
  std::vector<std::vector<int32_t>> tables;
  std::vector<Segment> segments = c.segments;
  for (Segment& s : segments) {
    tables.emplace_back();
    for (int64_t i = 0; i < s.k_end - s.k_begin; ++i) {
      if (i % kCacheBlock == 0) tables.back().push_back(static_cast<int32_t>(2 * --used + 1));
      std::copy_n(flat.begin() + (s.k_begin + i) * dim, dim, k.begin() + (tables.back().back() * kCacheBlock + i % kCacheBlock) * dim);
    }
    s = {s.q_begin, s.q_end, 0, s.k_end - s.k_begin};
  }
  const std::vector<BlockTable> views(tables.begin(), tables.end());
  Choice out{std::vector<int32_t>(static_cast<size_t>(c.tokens * c.top_k), 77),
             std::vector<float>(static_cast<size_t>(c.tokens * c.top_k), kNaN)};
  Arena scratch = DirtyArena(int64_t{256} << 20);
  const IndexerInputs inputs{c.shape, ViewOf(q.data(), {c.tokens, c.shape.heads * dim}),
                             ViewOf(std::as_const(k).data(), {std::ssize(k) / dim, dim}),
                             ViewOf(weights.data(), {c.tokens, c.shape.heads})};
  out.finite = IndexerTopK(inputs, segments, c.top_k, out.chosen, with_scores ? ViewOf(out.scores.data(), {c.tokens, c.top_k}) : View(),
                           scratch, views);
  for (const Segment& s : c.segments) {
    for (int64_t i = s.q_begin * c.top_k; i < s.q_end * c.top_k; ++i) {
      int32_t& key = out.chosen[static_cast<size_t>(i)];
      if (key >= 0) key += static_cast<int32_t>(s.k_begin);
    }
  }
  return out;
}

TEST(IndexerTopK, FindsKeysInBlocksOnEveryTarget) {
  const std::vector<Case> cases{{{3, 5}, {{0, 1, 0, 64}, {1, 3, 64, 129}, {3, 4, 129, 130}}, 4, 130, 10},
                                {{20, 17}, {{0, 3, 0, 300}, {3, 4, 300, 430}}, 4, 430, 64},
                                {{64, 128}, {{0, 40, 0, 190}, {40, 41, 190, 260}}, 41, 260, 32}};
  for (const Case& c : cases) {
    const auto in = WholeNumbers(c);
    const Scores scores = AllScores(c, in);
    ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
      for (const bool with_scores : {false, true}) {
        for (const bool bf16 : {false, true}) {
          const Choice got = bf16 ? ChooseInBlocks<BF16>(c, in, with_scores) : ChooseInBlocks<float>(c, in, with_scores);
          ExpectBest(c, scores, got, with_scores);
          EXPECT_TRUE(got.finite);
        }
      }
    });
  }
}

TEST(IndexerTopK, ScoresAreAccurate) {
  const Case c{{64, 128}, {{0, 2, 0, 150}}, 2, 150, 150};
  ref::IndexerInputs<double> in{RandomVector(2 * 64 * 128, 1), RandomVector(150 * 128, 2), RandomVector(2 * 64, 3)};
  for (auto* v : {&in.q, &in.k, &in.weights}) {
    for (double& x : *v) x = static_cast<float>(x);
  }
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    const Choice got = Choose<float>(c, in, true);
    for (int64_t j = 0; j < 150; ++j) EXPECT_NEAR(got.scores[static_cast<size_t>(150 + j)], ref::IndexerScore(c.shape, in, 1, j), 1e-4);
  });
}

// Rising scores make every key enter; falling ones none after the first k.
TEST(IndexerTopK, LongRowsInEveryOrder) {
  for (const double slope : {1.0, -1.0, 0.0}) {
    const Case c{{1, 1}, {{0, 1, 0, 3000}}, 1, 3000, 100};
    ref::IndexerInputs<double> in{{1.0}, std::vector<double>(3000), {1.0}};
    for (size_t i = 0; i < 3000; ++i) in.k[i] = 3000 + slope * static_cast<double>(i);
    ExpectBest(c, AllScores(c, in), Choose<float>(c, in, true), true);
  }
}

TEST(IndexerTopK, NaNScoresComeLast) {
  Case c{{1, 1}, {{0, 1, 0, 40}}, 1, 40, 3};
  ref::IndexerInputs<double> in{{1.0}, std::vector<double>(40, kNaN), {1.0}};
  in.k[20] = 1;
  in.k[30] = 2;
  in.k[39] = 3;
  EXPECT_EQ(Choose<float>(c, in, false).chosen, (std::vector<int32_t>{20, 30, 39}));
  in.k[30] = kNaN;
  const Choice got = Choose<float>(c, in, true);
  EXPECT_EQ(got.chosen, (std::vector<int32_t>{0, 20, 39}));
  EXPECT_EQ(got.scores, (std::vector<float>{-kInfinity, 1, 3}));
}

// What comes before it is not read: NaN there neither changes the choice nor is reported.
TEST(IndexerTopK, SaysWhichQueriesAreCompared) {
  EXPECT_EQ(FirstCompared({5, 305, 5, 305}, 300), 305);
  EXPECT_LE(FirstCompared({5, 306, 5, 306}, 300), 305);
  EXPECT_EQ(FirstCompared({0, 4, 0, 400}, 300), 0);  // tokens that follow others
  const Case c{{4, 32}, {{0, 200, 0, 200}}, 200, 200, 150};
  auto in = WholeNumbers(c);
  const Choice want = Choose<float>(c, in, false);
  const int64_t first = FirstCompared(c.segments[0], c.top_k);
  EXPECT_GT(first, 100);
  EXPECT_LE(first, 150);
  std::fill_n(in.q.begin(), first * 4 * 32, kNaN);
  std::fill_n(in.weights.begin(), first * 4, kNaN);
  const Choice got = Choose<float>(c, in, false);
  EXPECT_EQ(got.chosen, want.chosen);
  EXPECT_TRUE(got.finite);
}

TEST(IndexerTopK, SaysThatAScoreIsNotFinite) {
  const Case c{{2, 1}, {{0, 1, 0, 40}}, 1, 40, 3};
  const ref::IndexerInputs<double> good{{1.0, -1.0}, std::vector<double>(40, 1.0), {1.0, 1.0}};
  EXPECT_TRUE(Choose<float>(c, good, false).finite);
  for (const double bad : {kNaN, kInfinity}) {
    auto query = good, key = good, weight = good;
    query.q[0] = key.k[7] = weight.weights[0] = bad;
    for (const auto& in : {query, key, weight}) {
      EXPECT_FALSE(Choose<float>(c, in, false).finite);
      EXPECT_FALSE(Choose<BF16>(c, in, false).finite);
    }
  }
}

TEST(IndexerTopK, SameForAnyNumberOfThreads) {
  const Case c = Cases()[2];
  ref::IndexerInputs<double> in{RandomVector(140 * 4 * 32, 1), RandomVector(141 * 32, 2), RandomVector(140 * 4, 3)};
  SetThreads(1);
  const Choice want = Choose<float>(c, in, true);
  for (const int threads : {2, 4}) {
    SetThreads(threads);
    const Choice got = Choose<float>(c, in, true);
    EXPECT_EQ(got.chosen, want.chosen);
    EXPECT_TRUE(SameBits(got.scores, want.scores));
  }
  SetThreads(0);
}

}  // namespace
}  // namespace fathom

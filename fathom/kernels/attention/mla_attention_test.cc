#include "fathom/kernels/attention/mla_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "fathom/base/threads.h"
#include "fathom/kernels/attention/mla_attention_plan.h"
#include "fathom/kernels/attention/mla_attention_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/close.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

using Inputs = ref::MlaInputs<double>;
using Keys = std::vector<std::vector<int32_t>>;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A batch with rows between and behind its segments that no kernel may read.
struct Case {
  MlaShape shape;
  std::vector<Segment> segments;
  int64_t tokens, keys;
};

Segment Same(int64_t begin, int64_t end) { return {begin, end, begin, end}; }

std::vector<Case> TrainingCases() {
  return {
      {{1, 1, 1, 1, 0.7f}, {Same(0, 1)}, 1, 1},
      {{3, 5, 2, 7, 0.4f}, {Same(1, 2), Same(2, 7), Same(9, 20)}, 23, 23},
      {{2, 16, 8, 16, 0.2f}, {Same(0, 64), Same(64, 129)}, 130, 130},
      {{2, 17, 6, 33, 0.25f}, {Same(40, 151), Same(0, 40)}, 151, 151},
      {{1, 64, 32, 64, 0.1f}, {Same(0, 300)}, 300, 300},
      {{37, 3, 2, 3, 0.5f}, {Same(0, 9)}, 9, 9},  // more heads than groups that sum dk_rope
      {{2, 128, 64, 128, 0.0722f}, {Same(3, 100)}, 101, 101},
  };
}

// BF16 inputs are rounded first, so that the reference sees what the kernel sees.
struct Data {
  Inputs in;
  std::vector<double> d_o;
};
Data MakeData(const Case& c, bool bf16, uint64_t seed = 1) {
  const MlaShape& s = c.shape;
  Data d{{RandomVector(c.tokens * s.heads * (s.nope_dim + s.rope_dim), seed),
          RandomVector(c.keys * s.heads * (s.nope_dim + s.v_dim), seed + 1), RandomVector(c.keys * s.rope_dim, seed + 2)},
         RandomVector(c.tokens * s.heads * s.v_dim, seed + 3)};
  for (auto* v : {&d.in.q, &d.in.kv, &d.in.k_rope, &d.d_o}) {
    for (double& x : *v) x = bf16 ? RoundToBF16(static_cast<float>(x)) : static_cast<float>(x);
  }
  return d;
}

// A matrix whose rows are 3 elements further apart than they are wide; NaN in the gap and in the rows that are not used.
template <class T>
class Matrix {
 public:
  Matrix(int64_t rows, int64_t columns)
      : rows_(rows), columns_(columns), data_(static_cast<size_t>(rows * (columns + 3) + 1), FromFloat<T>(kNaN)) {}
  Matrix(std::span<const double> from, int64_t rows, const std::vector<bool>& used) : Matrix(rows, std::ssize(from) / rows) {
    for (int64_t i = 0; i < rows * columns_; ++i) {
      if (used[static_cast<size_t>(i / columns_)]) At(i) = FromFloat<T>(static_cast<float>(from[static_cast<size_t>(i)]));
    }
  }
  View view() { return ViewOf(data_.data() + 1, {rows_, columns_}, columns_ + 3); }
  std::vector<float> Values() {
    std::vector<float> out(static_cast<size_t>(rows_ * columns_));
    for (int64_t i = 0; i < std::ssize(out); ++i) out[static_cast<size_t>(i)] = ToFloat(At(i));
    return out;
  }
  bool GapsUntouched() const {
    for (int64_t i = 0; i < std::ssize(data_); ++i) {
      const bool gap = i == 0 || (i - 1) % (columns_ + 3) >= columns_;
      if (gap && !std::isnan(ToFloat(data_[static_cast<size_t>(i)]))) return false;
    }
    return true;
  }

 private:
  T& At(int64_t i) { return data_[static_cast<size_t>(1 + i / columns_ * (columns_ + 3) + i % columns_)]; }
  int64_t rows_, columns_;
  std::vector<T> data_;
};

std::vector<bool> UsedQueries(const Case& c) {
  std::vector<bool> used(static_cast<size_t>(c.tokens));
  for (const Segment& s : c.segments) std::fill(used.begin() + s.q_begin, used.begin() + s.q_end, true);
  return used;
}
std::vector<bool> UsedKeys(const Case& c) {
  std::vector<bool> used(static_cast<size_t>(c.keys));
  for (const Segment& s : c.segments) std::fill(used.begin() + s.k_begin, used.begin() + s.k_end, true);
  return used;
}

struct Results {
  std::vector<float> o, lse, top, dq, dkv, dk_rope, largest;
  bool gaps_untouched = true;
};

template <class T>
Results RunKernels(const Case& c, const Data& d, bool backward) {
  const MlaShape& s = c.shape;
  const auto queries = UsedQueries(c), keys = UsedKeys(c);
  Matrix<T> q(d.in.q, c.tokens, queries), kv(d.in.kv, c.keys, keys), k_rope(d.in.k_rope, c.keys, keys);
  Matrix<T> o(c.tokens, s.heads * s.v_dim), d_o(d.d_o, c.tokens, queries);
  Matrix<T> dq(c.tokens, q.view().dim(1)), dkv(c.keys, kv.view().dim(1)), dk_rope(c.keys, s.rope_dim);
  Matrix<float> lse(c.tokens, s.heads), top(c.tokens, s.heads);
  Arena scratch = DirtyArena(int64_t{256} << 20);
  const MlaInputs in{q.view(), kv.view(), k_rope.view()};
  MlaAttentionForward(s, c.segments, in, o.view(), lse.view(), scratch, top.view());
  Results r{o.Values(), lse.Values(), top.Values()};
  r.largest.resize(static_cast<size_t>(s.heads));
  LargestScores(c.segments, top.view(), r.largest);
  if (backward) {
    MlaAttentionBackward(s, c.segments, in, {o.view(), lse.view(), d_o.view()}, {dq.view(), dkv.view(), dk_rope.view()}, scratch);
    r.dq = dq.Values();
    r.dkv = dkv.Values();
    r.dk_rope = dk_rope.Values();
  }
  r.gaps_untouched = o.GapsUntouched() && lse.GapsUntouched() && top.GapsUntouched() && dq.GapsUntouched() && dkv.GapsUntouched() &&
                     dk_rope.GapsUntouched();
  return r;
}

// Rows outside segments are not written by the forward pass: they are taken out of the comparison.
std::vector<float> Only(const std::vector<bool>& rows, std::vector<float> x) {
  const size_t width = x.size() / rows.size();
  for (size_t i = 0; i < x.size(); ++i) {
    if (!rows[i / width]) x[i] = 0;
  }
  return x;
}

void ExpectMatchesReference(const Case& c, const Data& d, const Results& r, bool backward, double bound) {
  const Keys keys = ref::VisibleKeys(c.segments, c.tokens);
  const auto want = ref::MlaForward(c.shape, keys, d.in);
  EXPECT_TRUE(RelativeL2(Only(UsedQueries(c), r.o), want.o, bound));
  EXPECT_TRUE(Close(Only(UsedQueries(c), r.lse), want.lse, 2e-6, 2e-6));
  const std::vector<double> top = ref::MlaLargestScores(c.shape, keys, d.in);
  for (int64_t h = 0; h < c.shape.heads; ++h) {
    double largest = -std::numeric_limits<double>::infinity();
    for (int64_t row = h; row < std::ssize(top); row += c.shape.heads) {
      const auto at = static_cast<size_t>(row);
      largest = std::max(largest, top[at]);
      if (keys[at / static_cast<size_t>(c.shape.heads)].empty()) continue;
      EXPECT_NEAR(r.top[at], top[at], 2e-6 * (1 + std::fabs(top[at])));
    }
    EXPECT_NEAR(r.largest[static_cast<size_t>(h)], largest, 2e-6 * (1 + std::fabs(largest)));
  }
  EXPECT_TRUE(r.gaps_untouched);
  if (!backward) return;
  const Inputs gradient = ref::MlaBackward(c.shape, keys, d.in, d.d_o);
  EXPECT_TRUE(RelativeL2(r.dq, gradient.q, bound));
  EXPECT_TRUE(RelativeL2(r.dkv, gradient.kv, bound));
  EXPECT_TRUE(RelativeL2(r.dk_rope, gradient.k_rope, bound));
}

TEST(MlaAttention, ReferenceBackwardIsComplexStepDerivative) {
  const Case c = TrainingCases()[1];
  const Data d = MakeData(c, false);
  const Keys keys = ref::VisibleKeys(c.segments, c.tokens);
  const Inputs want = ref::MlaBackward(c.shape, keys, d.in, d.d_o);
  using C = std::complex<double>;
  const auto gradient = [&](auto member) {
    const ComplexFunction f = [&](const std::vector<C>& x) {
      ref::MlaInputs<C> in{{d.in.q.begin(), d.in.q.end()}, {d.in.kv.begin(), d.in.kv.end()}, {d.in.k_rope.begin(), d.in.k_rope.end()}};
      in.*member.first = x;
      return ref::MlaForward(c.shape, keys, in).o;
    };
    return ComplexStepGradient(f, d.in.*member.second, d.d_o);
  };
  using CI = ref::MlaInputs<C>;
  EXPECT_TRUE(RelativeL2(want.q, gradient(std::pair(&CI::q, &Inputs::q)), 1e-12));
  EXPECT_TRUE(RelativeL2(want.kv, gradient(std::pair(&CI::kv, &Inputs::kv)), 1e-12));
  EXPECT_TRUE(RelativeL2(want.k_rope, gradient(std::pair(&CI::k_rope, &Inputs::k_rope)), 1e-12));
}

TEST(MlaAttention, MatchesReferenceOnEveryTarget) {
  for (const Case& c : TrainingCases()) {
    const Data d = MakeData(c, false);
    ForEachTarget(SimdTargets(), PinSimdTarget, [&] { ExpectMatchesReference(c, d, RunKernels<float>(c, d, true), true, 2e-6); });
  }
}

TEST(MlaAttention, BF16MatchesReferenceOnEveryTarget) {
  for (const Case& c : TrainingCases()) {
    const Data d = MakeData(c, true);
    ForEachTarget(SimdTargets(), PinSimdTarget, [&] { ExpectMatchesReference(c, d, RunKernels<BF16>(c, d, true), true, 6e-3); });
  }
}

TEST(MlaAttention, LaterQueriesOfLongerContexts) {
  const Case c{{2, 12, 4, 10, 0.3f}, {{0, 5, 0, 70}, {5, 6, 70, 71}, {6, 60, 75, 300}}, 61, 301};
  const Data d = MakeData(c, false);
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] { ExpectMatchesReference(c, d, RunKernels<float>(c, d, false), false, 2e-6); });
}

// A row's arithmetic depends on its keys alone: prefill in chunks has the bits of one prefill.
TEST(MlaAttention, ChunkedPrefillHasTheSameBits) {
  const MlaShape shape{2, 24, 8, 20, 0.2f};
  const Case whole{shape, {{0, 290, 0, 290}}, 290, 290};
  const Data d = MakeData(whole, false);
  const Results want = RunKernels<float>(whole, d, false);
  const Case chunks{shape, {{0, 100, 0, 100}, {100, 101, 0, 101}, {101, 290, 0, 290}}, 290, 290};
  const Results got = RunKernels<float>(chunks, d, false);
  EXPECT_TRUE(SameBits(got.o, want.o));
  EXPECT_TRUE(SameBits(got.lse, want.lse));
}

// Many threads share parts of heads: queries for dq, keys for dkv and dk_rope.
TEST(MlaAttention, SameBitsForAnyNumberOfThreads) {
  const Case c{{5, 24, 8, 20, 0.2f}, {Same(0, 150), Same(150, 151), {151, 400, 151, 520}}, 402, 522};
  const auto all = [&](const Results& r) {
    std::vector<float> values = Only(UsedQueries(c), r.o);
    for (const auto* v : {&r.dq, &r.dkv, &r.dk_rope}) values.insert(values.end(), v->begin(), v->end());
    return values;
  };
  EXPECT_TRUE(IsBetterInParts(c.segments, 5, kManyThreads));
  EXPECT_FALSE(IsBetterInParts(c.segments, 5, 2));
  const Data plain = MakeData(c, false), rounded = MakeData(c, true);
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    ExpectSameForAnyThreads([&] { return all(RunKernels<float>(c, plain, true)); });
    ExpectSameForAnyThreads([&] { return all(RunKernels<BF16>(c, rounded, true)); });
  });
}

TEST(MlaAttention, PartsCoverAllQueriesAndKeysLongestFirst) {
  const std::vector<Segment> segments = {Same(0, 1000), {1000, 1100, 1000, 1500}};
  Arena scratch(1 << 20);
  const auto parts = BackwardParts(segments, 16, 64, scratch);
  std::vector<int64_t> queries(2), keys(2);
  double work = 0;
  for (const BackwardPart& p : parts) {
    EXPECT_EQ(p.range.begin % kQueryBlock, 0);
    (p.of_keys ? keys : queries)[static_cast<size_t>(p.segment)] += p.range.end - p.range.begin;
    work += p.work;
  }
  EXPECT_EQ(queries, (std::vector<int64_t>{1000, 100}));
  EXPECT_EQ(keys, (std::vector<int64_t>{1000, 500}));
  EXPECT_TRUE(std::ranges::is_sorted(parts, std::greater(), &BackwardPart::work));
  EXPECT_GT(std::ssize(parts) * 16, 64);
}

double RelativeError(std::span<const float> got, std::span<const double> want) {
  double error = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  return std::sqrt(error / size);
}

TEST(MlaAttention, LongRowsAreAsAccurateAsPlainF32) {
  const Case c{{1, 64, 32, 64, 0.3f}, {Same(0, 700)}, 700, 700};
  const Data d = MakeData(c, false);
  const Keys keys = ref::VisibleKeys(c.segments, c.tokens);
  const auto truth = ref::MlaForward(c.shape, keys, d.in);
  const auto floats = [](const std::vector<double>& x) { return ToFloats(x); };
  const auto plain = ref::MlaForward(c.shape, keys, ref::MlaInputs<float>{floats(d.in.q), floats(d.in.kv), floats(d.in.k_rope)});
  EXPECT_LE(RelativeError(RunKernels<float>(c, d, false).o, truth.o), RelativeError(plain.o, truth.o));
}

TEST(MlaAttention, LargeScoresStayFinite) {
  const Case c{{1, 8, 8, 8, 1.0f}, {Same(0, 130)}, 130, 130};
  Data d = MakeData(c, false);
  for (double& x : d.in.q) x = static_cast<float>(x * 300);
  ExpectMatchesReference(c, d, RunKernels<float>(c, d, false), false, 3e-4);
}

TEST(MlaAttention, EmptyLseIsNotWritten) {
  const Case c = TrainingCases()[1];
  Data d = MakeData(c, false);
  const auto q = ToFloats(d.in.q), kv = ToFloats(d.in.kv), k_rope = ToFloats(d.in.k_rope);
  std::vector<float> o(static_cast<size_t>(c.tokens * c.shape.heads * c.shape.v_dim));
  Arena scratch = DirtyArena(int64_t{256} << 20);
  const auto matrix = [&](const std::vector<float>& x) { return ViewOf(x.data(), {c.tokens, std::ssize(x) / c.tokens}); };
  MlaAttentionForward(c.shape, c.segments, {matrix(q), matrix(kv), matrix(k_rope)}, ViewOf(o.data(), {c.tokens, std::ssize(o) / c.tokens}),
                      View(), scratch);
  EXPECT_TRUE(RelativeL2(o, ref::MlaForward(c.shape, ref::VisibleKeys(c.segments, c.tokens), d.in).o, 2e-6));
}

}  // namespace
}  // namespace fathom

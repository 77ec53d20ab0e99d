#include "fathom/kernels/indexer/indexer_loss.h"

#include <gtest/gtest.h>

#include <numeric>

#include "fathom/base/threads.h"
#include "fathom/kernels/indexer/indexer_loss_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/close.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

using C = std::complex<double>;
using Keys = std::vector<std::vector<int32_t>>;
template <class T>
using Indexer = ref::IndexerInputs<T>;

struct Case {
  MlaShape main;
  IndexerShape shape;
  std::vector<Segment> segments;
  int64_t tokens, k;  // k == 0: the dense stage
};
Segment Same(int64_t begin, int64_t end) { return {begin, end, begin, end}; }
std::vector<Case> SmallCases() {
  return {
      {{1, 1, 1, 1, 0.7f}, {1, 1}, {Same(0, 1)}, 1, 0},
      {{2, 5, 2, 3, 0.5f}, {3, 5}, {Same(1, 2), Same(2, 12)}, 14, 0},
      {{2, 5, 2, 3, 0.5f}, {3, 5}, {Same(1, 2), Same(2, 12)}, 14, 4},
  };
}
std::vector<Case> LargeCases() {
  return {
      {{3, 16, 8, 8, 0.3f}, {4, 32}, {Same(0, 80), Same(80, 115)}, 116, 0},
      {{3, 16, 8, 8, 0.3f}, {4, 32}, {Same(0, 80), Same(80, 115)}, 116, 24},
      {{2, 16, 8, 8, 0.3f}, {20, 17}, {Same(0, 75)}, 75, 66},
  };
}

struct Data {
  ref::MlaInputs<double> main;
  Indexer<double> indexer;
  Keys keys;
  std::vector<int32_t> chosen;  // empty in the dense stage
  std::vector<float> lse;
};
void RoundTo(bool bf16, std::vector<double>& x) {
  for (double& v : x) v = bf16 ? RoundToBF16(static_cast<float>(v)) : static_cast<float>(v);
}

// Every second key that a query sees, from its own backwards, at most k.
std::vector<int32_t> Choose(const Keys& visible, int64_t k) {
  std::vector<int32_t> chosen(visible.size() * static_cast<size_t>(k), -1);
  for (size_t t = 0; t < visible.size(); ++t) {
    std::vector<int32_t> own;
    for (int64_t i = std::ssize(visible[t]) - 1; i >= 0 && std::ssize(own) < k; i -= 2) own.push_back(visible[t][static_cast<size_t>(i)]);
    std::copy(own.rbegin(), own.rend(), chosen.begin() + static_cast<int64_t>(t) * k);
  }
  return chosen;
}

Data MakeData(const Case& c, bool bf16) {
  const MlaShape& m = c.main;
  Data d;
  d.main = {RandomVector(c.tokens * m.heads * (m.nope_dim + m.rope_dim), 1), RandomVector(c.tokens * m.heads * (m.nope_dim + m.v_dim), 2),
            RandomVector(c.tokens * m.rope_dim, 3)};
  d.indexer = {RandomVector(c.tokens * c.shape.heads * c.shape.head_dim, 4, 0.5), RandomVector(c.tokens * c.shape.head_dim, 5, 0.5),
               RandomVector(c.tokens * c.shape.heads, 6, 0.5)};
  for (auto* v : {&d.main.q, &d.main.kv, &d.main.k_rope, &d.indexer.q, &d.indexer.k}) RoundTo(bf16, *v);
  RoundTo(false, d.indexer.weights);
  d.keys = ref::VisibleKeys(c.segments, c.tokens);
  if (c.k > 0) {
    d.chosen = Choose(d.keys, c.k);
    d.keys = ref::ChosenKeys(d.chosen, c.k);
  }
  d.lse = ToFloats(ref::MlaForward(m, d.keys, d.main).lse);
  return d;
}

struct Results {
  std::vector<float> kl, dq, dk, dweights;
};
template <class T>
Results RunLoss(const Case& c, const Data& d, float factor, bool gradients = true) {
  const auto convert = [](std::span<const double> x) {
    std::vector<T> out;
    for (const double v : x) out.push_back(FromFloat<T>(static_cast<float>(v)));
    return out;
  };
  const std::vector<T> q = convert(d.main.q), kv = convert(d.main.kv), k_rope = convert(d.main.k_rope);
  const std::vector<T> iq = convert(d.indexer.q), ik = convert(d.indexer.k);
  const std::vector<float> weights = ToFloats(d.indexer.weights);
  const auto matrix = [&](auto& x) { return ViewOf(x.data(), {c.tokens, std::ssize(x) / c.tokens}); };
  Results r{std::vector<float>(static_cast<size_t>(c.tokens), 9), std::vector<float>(iq.size(), 9), std::vector<float>(ik.size(), 9),
            std::vector<float>(weights.size(), 9)};
  const IndexerTarget target{c.main, matrix(q), matrix(kv), matrix(k_rope), matrix(d.lse)};
  const IndexerGradients out = gradients ? IndexerGradients{matrix(r.dq), matrix(r.dk), matrix(r.dweights)} : IndexerGradients{};
  Arena scratch = DirtyArena(int64_t{256} << 20);
  IndexerLoss(target, {c.shape, matrix(iq), matrix(ik), matrix(weights)}, {c.segments, d.chosen, c.k}, factor, r.kl, out, scratch);
  return r;
}

// sum over queries of kl at x + i h v, over h: the derivative along v.
double Slope(const Case& c, const Data& d, const Indexer<double>& v) {
  constexpr double kStep = 1e-50;
  const auto along = [](const std::vector<double>& x, const std::vector<double>& direction) {
    std::vector<C> out;
    for (size_t i = 0; i < x.size(); ++i) out.emplace_back(x[i], kStep * direction[i]);
    return out;
  };
  const Indexer<C> in{along(d.indexer.q, v.q), along(d.indexer.k, v.k), along(d.indexer.weights, v.weights)};
  double slope = 0;
  for (const C& kl : ref::IndexerKl(c.main, d.main, c.shape, in, d.keys)) slope += kl.imag() / kStep;
  return slope;
}

TEST(IndexerLoss, GradientsAreComplexStepDerivatives) {
  for (const Case& c : SmallCases()) {
    const Data d = MakeData(c, false);
    const auto gradient = [&](std::vector<C> Indexer<C>::*member, const std::vector<double>& x) {
      const ComplexFunction f = [&](const std::vector<C>& at) {
        Indexer<C> in{{d.indexer.q.begin(), d.indexer.q.end()},
                      {d.indexer.k.begin(), d.indexer.k.end()},
                      {d.indexer.weights.begin(), d.indexer.weights.end()}};
        in.*member = at;
        return ref::IndexerKl(c.main, d.main, c.shape, in, d.keys);
      };
      return ComplexStepGradient(f, x, std::vector<double>(static_cast<size_t>(c.tokens), 0.25));
    };
    const auto dq = gradient(&Indexer<C>::q, d.indexer.q), dk = gradient(&Indexer<C>::k, d.indexer.k);
    const auto dweights = gradient(&Indexer<C>::weights, d.indexer.weights);
    ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
      const Results r = RunLoss<float>(c, d, 0.25f);
      EXPECT_TRUE(RelativeL2(r.dq, dq, 1e-5));
      EXPECT_TRUE(RelativeL2(r.dk, dk, 1e-5));
      EXPECT_TRUE(RelativeL2(r.dweights, dweights, 1e-5));
    });
  }
}

double Dot(std::span<const float> a, std::span<const double> b) { return std::inner_product(b.begin(), b.end(), a.begin(), 0.0); }

// Long strips, several blocks: the loss of every query, and the slope along random directions.
template <class T>
void CheckLargeCase(const Case& c, double loss_bound, double slope_bound) {
  const Data d = MakeData(c, std::is_same_v<T, BF16>);
  const auto kl = ref::IndexerKl(c.main, d.main, c.shape, d.indexer, d.keys);
  const Indexer<double> v{RandomVector(std::ssize(d.indexer.q), 11), RandomVector(std::ssize(d.indexer.k), 12),
                          RandomVector(std::ssize(d.indexer.weights), 13)};
  const std::vector<double> zero_k(v.k.size()), zero_q(v.q.size()), zero_w(v.weights.size());
  const double along_q = Slope(c, d, {v.q, zero_k, zero_w}), along_k = Slope(c, d, {zero_q, v.k, zero_w});
  const double along_weights = Slope(c, d, {zero_q, zero_k, v.weights});
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    const Results r = RunLoss<T>(c, d, 1.0f);
    EXPECT_TRUE(RelativeL2(r.kl, kl, loss_bound));
    EXPECT_NEAR(Dot(r.dq, v.q), along_q, slope_bound * std::abs(along_q));
    EXPECT_NEAR(Dot(r.dk, v.k), along_k, slope_bound * std::abs(along_k));
    EXPECT_NEAR(Dot(r.dweights, v.weights), along_weights, slope_bound * std::abs(along_weights));
  });
}

TEST(IndexerLoss, MatchesReferenceOnEveryTarget) {
  for (const Case& c : LargeCases()) {
    CheckLargeCase<float>(c, 3e-6, 1e-5);
    CheckLargeCase<BF16>(c, 1e-5, 1e-4);
  }
}

TEST(IndexerLoss, ChoosingAllEqualsTheDenseStage) {
  Case c = LargeCases()[2];
  c.k = 0;
  const Results dense = RunLoss<float>(c, MakeData(c, false), 1.0f);
  c.k = c.tokens;
  Data d = MakeData(c, false);
  d.keys = ref::VisibleKeys(c.segments, c.tokens);
  std::fill(d.chosen.begin(), d.chosen.end(), -1);
  for (size_t t = 0; t < d.keys.size(); ++t)
    std::copy(d.keys[t].begin(), d.keys[t].end(), d.chosen.begin() + static_cast<int64_t>(t) * c.k);
  d.lse = ToFloats(ref::MlaForward(c.main, d.keys, d.main).lse);
  const Results sparse = RunLoss<float>(c, d, 1.0f);
  EXPECT_TRUE(RelativeL2(sparse.kl, ToDoubles(dense.kl), 1e-5));
  EXPECT_TRUE(RelativeL2(sparse.dk, ToDoubles(dense.dk), 1e-5));
}

TEST(IndexerLoss, LossAloneHasTheSameBits) {
  const Case c = LargeCases()[1];
  const Data d = MakeData(c, false);
  EXPECT_TRUE(SameBits(RunLoss<float>(c, d, 1.0f, false).kl, RunLoss<float>(c, d, 1.0f).kl));
}

TEST(IndexerLoss, SameBitsForAnyNumberOfThreads) {
  for (const Case& c : LargeCases()) {
    const Data d = MakeData(c, false);
    SetThreads(1);
    const Results want = RunLoss<float>(c, d, 1.0f);
    for (const int threads : {2, 4}) {
      SetThreads(threads);
      const Results got = RunLoss<float>(c, d, 1.0f);
      EXPECT_TRUE(SameBits(got.kl, want.kl));
      EXPECT_TRUE(SameBits(got.dq, want.dq));
      EXPECT_TRUE(SameBits(got.dk, want.dk));
      EXPECT_TRUE(SameBits(got.dweights, want.dweights));
    }
  }
  SetThreads(0);
}

}  // namespace
}  // namespace fathom

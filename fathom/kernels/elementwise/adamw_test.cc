#include "fathom/kernels/elementwise/adamw.h"

#include "fathom/kernels/elementwise/adamw_ref.h"
#include "fathom/kernels/elementwise/rounding_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr AdamWStep kStep = {
    .learning_rate = 1e-2f, .b1 = 0.9f, .b2 = 0.95f, .eps = 1e-8f, .eps_root = 1e-10f, .weight_decay = 0.1f, .t = 3, .grad_scale = 0.5f};

std::vector<double> Squares(int64_t n, uint64_t seed) {
  std::vector<double> v = RandomVector(n, seed);
  for (double& x : v) x = static_cast<float>(x * x);
  return v;
}

template <class W, class M, class V = float>
void CheckAdamW(int64_t n, int64_t shift, bool copied, AdamWStep step = kStep) {
  SCOPED_TRACE(testing::Message() << n << " shift " << shift);
  PaddedMatrix<W> w(1, n, 0, shift, RandomVector(n, 1));
  PaddedMatrix<M> m(1, n, 0, 1, RandomVector(n, 2));
  PaddedMatrix<V> v(1, n, 0, 2, Squares(n, 3));
  PaddedMatrix<float> g(1, n, 0, 3, RandomVector(n, 4));
  PaddedMatrix<BF16> copy(1, n, 0, 1), rounded(1, n);
  const auto w0 = w.Values(), m0 = m.Values(), v0 = v.Values(), g0 = g.Values();
  std::vector<double> want_w, want_m, want_v;
  for (size_t i = 0; i < w0.size(); ++i) {
    const AdamWElement<double> e = AdamWRef<double>(step, {w0[i], m0[i], v0[i]}, g0[i]);
    want_w.push_back(e.w);
    want_m.push_back(e.m);
    want_v.push_back(e.v);
  }
  AdamWUpdate(step, {w.view(), m.view(), v.view(), g.view(), copied ? copy.view() : View()});
  EXPECT_TRUE(Close(w.Floats(), want_w, 5e-7, sizeof(W) == 4 ? 1e-6 : 0.005));
  EXPECT_TRUE(Close(m.Floats(), want_m, 1e-7, sizeof(M) == 4 ? 3e-7 : 0.005));
  EXPECT_TRUE(Close(v.Floats(), want_v, 0, sizeof(V) == 4 ? 3e-7 : 0.005));
  EXPECT_TRUE(w.PaddingUntouched());
  EXPECT_TRUE(m.PaddingUntouched());
  EXPECT_TRUE(v.PaddingUntouched());
  EXPECT_TRUE(copy.PaddingUntouched());
  rounded.Set(w.Values());
  if (copied) {
    EXPECT_TRUE(SameBits(copy.Floats(), rounded.Floats()));
  }
}

TEST(AdamW, EqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t n : kRowSizes) {
      CheckAdamW<float, float>(n, 0, false);
      CheckAdamW<float, float>(n, 1, true);
      CheckAdamW<float, BF16>(n, 3, false);
      CheckAdamW<BF16, float>(n, 1, false);
      CheckAdamW<BF16, BF16, BF16>(n, 1, false);
      AdamWStep ahead = kStep;
      ahead.nesterov = true;
      CheckAdamW<float, float>(n, 0, true, ahead);
    }
  });
}

// Rounded by chance, w, m and v stand beside the F32 results by less than a step, and their steps are not of one draw.
TEST(AdamW, RoundsByChance) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    const int64_t n = 517;
    AdamWStep step = kStep;
    step.rounding = {true, 7};
    PaddedMatrix<float> w(1, n, 0, 0, RandomVector(n, 1)), g(1, n, 0, 0, RandomVector(n, 4));
    PaddedMatrix<BF16> w16(1, n, 0, 0, w.Values()), m16(1, n, 0, 0, RandomVector(n, 2)), v16(1, n, 0, 0, Squares(n, 3));
    w.Set(w16.Values());
    PaddedMatrix<float> m(1, n, 0, 0, m16.Values()), v(1, n, 0, 0, v16.Values());
    AdamWUpdate(step, {w.view(), m.view(), v.view(), g.view()});
    AdamWUpdate(step, {w16.view(), m16.view(), v16.view(), g.view()});
    const auto up = [](const std::vector<float>& exact, const std::vector<float>& rounded, uint32_t key) {
      for (size_t i = 0; i < exact.size(); ++i) {
        const uint32_t draw = RandomWordRef(key, static_cast<uint32_t>(i)) & 0xffff;
        EXPECT_EQ(rounded[i], RoundByChanceRef(exact[i], draw)) << i;
      }
    };
    up(w.Floats(), w16.Floats(), 7);
    up(m.Floats(), m16.Floats(), 7 ^ 0x9e3779b9u);
    up(v.Floats(), v16.Floats(), 7 ^ 0x7f4a7c15u);
  });
}

TEST(AdamW, FirstStepMovesByTheLearningRate) {
  AdamWStep step = kStep;
  step.t = 1;
  step.weight_decay = 0;
  step.eps_root = 0;
  PaddedMatrix<float> w(1, 2, 0, 0, std::vector<double>{1, 1}), m(1, 2, 0, 0, std::vector<double>{0, 0}),
      v(1, 2, 0, 0, std::vector<double>{0, 0});
  PaddedMatrix<float> g(1, 2, 0, 0, std::vector<double>{123, -1e-3});
  AdamWUpdate(step, {w.view(), m.view(), v.view(), g.view()});
  EXPECT_TRUE(Close(w.Floats(), std::vector<double>{0.99, 1.01}, 1e-6, 0));
}

TEST(AdamW, SgdEqualsReference) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t n : {1, 7, 16, 33, 2048}) {
      PaddedMatrix<float> w(1, n, 0, 1, RandomVector(n, 1)), g(1, n, 0, 3, RandomVector(n, 4));
      PaddedMatrix<BF16> copy(1, n, 0, 1), rounded(1, n);
      std::vector<double> want;
      for (size_t i = 0; i < static_cast<size_t>(n); ++i) want.push_back(SgdRef(0.1, 0.01, 0.5, w.Values()[i], g.Values()[i]));
      SgdUpdate({0.1f, 0.01f, 0.5f}, w.view(), g.view(), copy.view());
      EXPECT_TRUE(Close(w.Floats(), want, 1e-7, 3e-7));
      EXPECT_TRUE(w.PaddingUntouched());
      rounded.Set(w.Values());
      EXPECT_TRUE(SameBits(copy.Floats(), rounded.Floats()));
    }
  });
}

TEST(AdamW, BitsDoNotDependOnThreads) {
  const int64_t n = 70001;
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> w(1, n, 0, 0, RandomVector(n, 1)), m(1, n, 0, 0, RandomVector(n, 2)), v(1, n, 0, 0, Squares(n, 3)),
        g(1, n, 0, 0, RandomVector(n, 4));
    AdamWUpdate(kStep, {w.view(), m.view(), v.view(), g.view()});
    return w.Floats();
  });
}

}  // namespace
}  // namespace fathom

#include "fathom/kernels/attention/head_product.h"

#include <gtest/gtest.h>

#include <tuple>

#include "fathom/base/threads.h"
#include "fathom/kernels/attention/head_product_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/close.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

struct ProductCase {
  int64_t heads, nope_dim, v_dim, latent_dim, queries;
};
template <class T>
void CheckProduct(const ProductCase& c) {
  const int64_t per_head = c.nope_dim + c.v_dim;
  std::vector<T> stored;
  std::vector<double> w;
  for (const double x : RandomVector(c.heads * per_head * c.latent_dim, 5)) {
    stored.push_back(FromFloat<T>(static_cast<float>(x)));
    w.push_back(ToFloat(stored.back()));
  }
  const WeightView weight{ViewOf(std::as_const(stored).data(), {c.heads * per_head, c.latent_dim}), {}};
  Arena scratch = DirtyArena(1 << 20);
  for (const bool to_latent : {true, false}) {
    const HeadProduct kind = to_latent ? HeadProduct::kToLatent : HeadProduct::kFromLatent;
    const int64_t first = to_latent ? 0 : c.nope_dim, rows = to_latent ? c.nope_dim : c.v_dim;
    const int64_t in = c.heads * (to_latent ? rows : c.latent_dim), out = c.heads * (to_latent ? c.latent_dim : rows);
    const auto x = ToFloats(RandomVector(c.queries * in, 6));
    std::vector<float> y(static_cast<size_t>(c.queries * out), kNaN);
    PerHeadMatMul(kind, {c.heads, weight, first, rows}, ViewOf(x.data(), {c.queries, in}), ViewOf(y.data(), {c.queries, out}), scratch);
    EXPECT_TRUE(RelativeL2(y, ref::PerHeadMatMul(kind, c.heads, w, c.latent_dim, first, rows, ToDoubles(x)), 2e-6));
  }
}

TEST(PerHeadMatMul, MatchesReferenceOnEveryTarget) {
  for (const ProductCase& c :
       {ProductCase{1, 1, 1, 1, 1}, {3, 5, 7, 19, 4}, {2, 128, 128, 512, 1}, {2, 16, 8, 40, 17}, {2, 37, 19, 150, 15}}) {
    ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
      CheckProduct<float>(c);
      CheckProduct<BF16>(c);
      CheckProduct<F16>(c);
    });
  }
}

TEST(PerHeadMatMul, BlockScaledFP8) {
  constexpr int64_t kHeads = 2, kPerHead = 100, kColumns = 300;  // blocks end inside heads and rows
  std::vector<F8E4M3> codes;
  for (const double x : RandomVector(kHeads * kPerHead * kColumns, 8, 50.0)) codes.push_back(ToF8E4M3(static_cast<float>(x)));
  std::vector<float> scale;
  for (const double x : RandomVector(2 * 3, 9)) scale.push_back(static_cast<float>(std::abs(x)));
  std::vector<double> w;
  for (int64_t i = 0; i < std::ssize(codes); ++i) {
    w.push_back(ToFloat(codes[static_cast<size_t>(i)]) * scale[static_cast<size_t>(i / kColumns / 128 * 3 + i % kColumns / 128)]);
  }
  const WeightView weight{ViewOf(std::as_const(codes).data(), {kHeads * kPerHead, kColumns}), ViewOf(std::as_const(scale).data(), {2, 3})};
  const auto x = ToFloats(RandomVector(3 * kHeads * 60, 10));
  std::vector<float> y(3 * kHeads * kColumns);
  Arena scratch = DirtyArena(1 << 20);
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    const auto run = [&] {
      PerHeadMatMul(HeadProduct::kToLatent, {kHeads, weight, 0, 60}, ViewOf(x.data(), {3, kHeads * 60}),
                    ViewOf(y.data(), {3, kHeads * kColumns}), scratch);
      return y;
    };
    ExpectSameForAnyThreads(run);
    EXPECT_TRUE(RelativeL2(y, ref::PerHeadMatMul(HeadProduct::kToLatent, kHeads, w, kColumns, 0, 60, ToDoubles(x)), 2e-6));
  });
}

// Whatever other rows there are, and however many threads.
TEST(PerHeadMatMul, ARowHasTheBitsThatItHasAlone) {
  constexpr int64_t kHeads = 3, kPerHead = 40, kColumns = 150, kRows = 37, kQueries = 15;
  const auto stored = ToFloats(RandomVector(kHeads * kPerHead * kColumns, 3));
  const WeightView weight{ViewOf(stored.data(), {kHeads * kPerHead, kColumns}), {}};
  Arena scratch = DirtyArena(1 << 20);
  const auto run = [&](HeadProduct kind, int64_t out, ConstView x) {
    std::vector<float> y(static_cast<size_t>(x.dim(0) * kHeads * out));
    PerHeadMatMul(kind, {kHeads, weight, 3, kRows}, x, ViewOf(y.data(), {x.dim(0), kHeads * out}), scratch);
    return y;
  };
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    for (const auto& [kind, in, out] :
         {std::tuple(HeadProduct::kToLatent, kRows, kColumns), std::tuple(HeadProduct::kFromLatent, kColumns, kRows)}) {
      const auto values = ToFloats(RandomVector(kQueries * kHeads * in, 4));
      const ConstView x = ViewOf(values.data(), {kQueries, kHeads * in});
      SetThreads(2);
      const auto all = run(kind, out, x);
      SetThreads(kManyThreads);
      EXPECT_TRUE(SameBits(run(kind, out, x), all));
      SetThreads(1);
      for (int64_t m = 0; m < kQueries; ++m) {
        const auto alone = run(kind, out, x.Rows(m, m + 1));
        EXPECT_TRUE(SameBits(alone, std::vector<float>(all.begin() + m * kHeads * out, all.begin() + (m + 1) * kHeads * out)));
      }
    }
    SetThreads(0);
  });
}

// The same of weights that lie anywhere in a line of the cache, NaN around them.
template <class T>
void CheckAloneAt(int64_t offset, ConstView scale, int64_t rows) {
  constexpr int64_t kHeads = 2, kPerHead = 24, kColumns = 192, kQueries = 3;
  std::vector<std::byte> bytes(kHeads * kPerHead * kColumns * sizeof(T) + 256, std::byte{0xff});
  auto* stored = reinterpret_cast<T*>(bytes.data() + (128 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) + offset);
  const auto drawn = RandomVector(kHeads * kPerHead * kColumns, 3);
  for (size_t i = 0; i < drawn.size(); ++i) stored[i] = FromFloat<T>(static_cast<float>(drawn[i]));
  const WeightView weight{ViewOf(static_cast<const T*>(stored), {kHeads * kPerHead, kColumns}), scale};
  Arena scratch = DirtyArena(1 << 20);
  for (const auto& [kind, in, out] :
       {std::tuple(HeadProduct::kToLatent, rows, kColumns), std::tuple(HeadProduct::kFromLatent, kColumns, rows)}) {
    const auto values = ToFloats(RandomVector(kQueries * kHeads * in, 4));
    const ConstView x = ViewOf(values.data(), {kQueries, kHeads * in});
    const auto run = [&, kind = kind, out = out](ConstView some) {
      std::vector<float> y(static_cast<size_t>(some.dim(0) * kHeads * out));
      PerHeadMatMul(kind, {kHeads, weight, 1, rows}, some, ViewOf(y.data(), {some.dim(0), kHeads * out}), scratch);
      return y;
    };
    const auto all = run(x);
    for (int64_t m = 0; m < kQueries; ++m) {
      const auto from = all.begin() + m * kHeads * out;
      EXPECT_TRUE(SameBits(run(x.Rows(m, m + 1)), std::vector<float>(from, from + kHeads * out))) << offset << " bytes behind a line";
    }
  }
}

TEST(PerHeadMatMul, ARowAloneHasItsBitsWhereverWeightsLie) {
  const std::vector<float> scale = {0.5f, 1.7f, 0.9f, 1.1f};
  SetThreads(2);
  ForEachTarget(SimdTargets(), PinSimdTarget, [&] {
    for (const int64_t offset : {0, 4, 8, 24, 56}) {
      for (const int64_t rows : {1, 2, 7, 20}) {
        CheckAloneAt<BF16>(offset, {}, rows);
        CheckAloneAt<F8E4M3>(offset, ViewOf(scale.data(), {1, 2}), rows);
      }
    }
  });
  SetThreads(0);
}

}  // namespace
}  // namespace fathom

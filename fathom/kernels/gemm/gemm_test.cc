#include "fathom/kernels/gemm/gemm.h"

#include "fathom/kernels/gemm/gemm_ref.h"
#include "fathom/kernels/gemm/gemm_test_data.h"
#include "fathom/kernels/simd/simd.h"

namespace fathom {
namespace {

struct Sizes {
  int64_t m, n, k;
};
// Around tiles and chunks, and far from them.
constexpr Sizes kSizes[] = {{1, 1, 1},     {2, 3, 5},     {3, 17, 33},   {8, 65, 127},   {9, 64, 64},     {16, 160, 512},
                            {33, 31, 257}, {64, 256, 96}, {5, 300, 700}, {257, 258, 67}, {300, 40, 1030}, {40, 129, 513}};

enum class Kind { kNT, kNN, kTN };

void AddReference(Kind kind, Sizes s, const std::vector<double>& a, const std::vector<double>& b, std::vector<double>& c) {
  if (kind == Kind::kNT) MatMulNTRef(s.m, s.n, s.k, a.data(), b.data(), c.data());
  if (kind == Kind::kNN) MatMulNNRef(s.m, s.n, s.k, a.data(), b.data(), c.data());
  if (kind == Kind::kTN) MatMulTNRef(s.m, s.n, s.k, a.data(), b.data(), c.data());
}

template <class X, class Y>
void CheckLinear(Kind kind, Sizes s, DType weight, bool e8m0, Write write, int64_t gap) {
  SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << " weight " << DTypeName(weight) << " in "
                                  << DTypeName(DTypeOf<X>::value) << " out " << DTypeName(DTypeOf<Y>::value) << " kind "
                                  << static_cast<int>(kind) << " add " << (write == Write::kAdd) << " gap " << gap);
  const int64_t in = kind == Kind::kNT ? s.k : s.n, out = kind == Kind::kNT ? s.n : s.k;
  PaddedMatrix<X> x(s.m, in, gap, gap % 4, Integers(s.m * in, 3));
  TestWeight w(weight, s.n, s.k, e8m0);
  PaddedMatrix<Y> y(s.m, out, gap, gap % 3);
  if (write == Write::kAdd) y.Set(Integers(s.m * out, 5));
  std::vector<double> want = write == Write::kAdd ? y.Values() : std::vector<double>(static_cast<size_t>(s.m * out), 0.0);
  AddReference(kind, s, x.Values(), w.Values(), want);
  Arena scratch = DirtyArena(GemmScratchBytes(s.m, s.n, s.k));
  if (kind == Kind::kNT)
    MatMulNT(x.view(), w.view(), y.view(), write, scratch);
  else
    MatMulNN(x.view(), w.view(), y.view(), write, scratch);
  EXPECT_TRUE(SameBits(y.Floats(), Rounded<Y>(want)));
  EXPECT_TRUE(y.PaddingUntouched());
}

template <class X>
void CheckWeightGradient(Sizes s, Write write, int64_t gap) {
  SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << " " << DTypeName(DTypeOf<X>::value) << " add "
                                  << (write == Write::kAdd));
  PaddedMatrix<X> dy(s.m, s.n, gap, 1, Integers(s.m * s.n, 3)), x(s.m, s.k, gap, 2, Integers(s.m * s.k, 4));
  PaddedMatrix<float> dw(s.n, s.k, gap, 3);
  if (write == Write::kAdd) dw.Set(Integers(s.n * s.k, 5));
  std::vector<double> want = write == Write::kAdd ? dw.Values() : std::vector<double>(static_cast<size_t>(s.n * s.k), 0.0);
  AddReference(Kind::kTN, s, dy.Values(), x.Values(), want);
  Arena scratch = DirtyArena(GemmScratchBytes(s.m, s.n, s.k));
  MatMulTN(dy.view(), x.view(), dw.view(), write, scratch);
  EXPECT_TRUE(SameBits(dw.Floats(), Rounded<float>(want)));
  EXPECT_TRUE(dw.PaddingUntouched());
}

TEST(Gemm, EveryDtypePairIsExactOnIntegers) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const Sizes s : kSizes) {
      for (const Kind kind : {Kind::kNT, Kind::kNN}) {
        for (const DType weight : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3}) {
          CheckLinear<float, float>(kind, s, weight, false, Write::kOverwrite, 0);
          CheckLinear<float, BF16>(kind, s, weight, true, Write::kAdd, 5);
          CheckLinear<BF16, float>(kind, s, weight, true, Write::kAdd, 3);
          CheckLinear<BF16, BF16>(kind, s, weight, false, Write::kOverwrite, 8);
        }
      }
      for (const Write write : {Write::kOverwrite, Write::kAdd}) {
        CheckWeightGradient<float>(s, write, 0);
        CheckWeightGradient<BF16>(s, write, 7);
      }
    }
  });
}

// BF16 activations: what is not BF16 is rounded to it; F32 activations: nothing is rounded.
TEST(Gemm, RoundsWeightsOnlyForBF16Activations) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t m : {2, 40}) {
      const int64_t n = 48, k = 200;
      const auto weights = RandomVector(n * k, 1);
      PaddedMatrix<float> w(n, k, 0, 0, weights), y(m, n), x(m, k, 0, 0, RandomVector(m * k, 2));
      PaddedMatrix<BF16> w16(n, k, 0, 0, weights), x16(m, k, 0, 0, RandomVector(m * k, 2));
      Arena scratch = DirtyArena(GemmScratchBytes(m, n, k));
      std::vector<double> want(static_cast<size_t>(m * n), 0.0), want16 = want;
      MatMulNTRef(m, n, k, x.Values().data(), w.Values().data(), want.data());
      MatMulNTRef(m, n, k, x16.Values().data(), w16.Values().data(), want16.data());
      MatMulNT(x.view(), {w.view(), {}}, y.view(), Write::kOverwrite, scratch);
      EXPECT_TRUE(RelativeL2(y.Floats(), want, 1e-6)) << m;
      MatMulNT(x16.view(), {w.view(), {}}, y.view(), Write::kOverwrite, scratch);
      EXPECT_TRUE(RelativeL2(y.Floats(), want16, 1e-6)) << m;
    }
  });
}

// Groups with none, one, few and many rows.
template <class X>
struct GroupedCase {
  static constexpr int64_t kRows[] = {0, 1, 5, 0, 70, 2, 300, 0};
  static constexpr int64_t n = 96, k = 136;
  GroupedCase() {
    begin.push_back(0);
    for (const int64_t rows : kRows) {
      begin.push_back(begin.back() + rows);
      weights.push_back(std::make_unique<TestWeight>(DType::kBF16, n, k, false, weights.size()));
      views.push_back(weights.back()->view());
      gradients.push_back(std::make_unique<PaddedMatrix<float>>(n, k, 4, 1));
      gradient_views.push_back(gradients.back()->view());
    }
  }
  int64_t rows() const { return begin.back(); }
  int64_t first(size_t e) const { return begin[e]; }
  Sizes sizes(size_t e) const { return {kRows[e], n, k}; }
  std::vector<int64_t> begin;
  std::vector<std::unique_ptr<TestWeight>> weights;
  std::vector<WeightView> views;
  std::vector<std::unique_ptr<PaddedMatrix<float>>> gradients;
  std::vector<View> gradient_views;
};

template <class X>
void CheckGrouped() {
  GroupedCase<X> c;
  const int64_t rows = c.rows(), n = c.n, k = c.k;
  PaddedMatrix<X> x(rows, k, 2, 1, Integers(rows * k, 1)), dy(rows, n, 3, 0, Integers(rows * n, 2));
  PaddedMatrix<float> y(rows, n, 1, 1), dx(rows, k, 5, 2);
  Arena scratch = DirtyArena(GemmScratchBytes(rows, n, k));
  GroupedMatMulNT(x.view(), c.begin, c.views, y.view(), Write::kOverwrite, scratch);
  GroupedMatMulNN(dy.view(), c.begin, c.views, dx.view(), Write::kOverwrite, scratch);
  GroupedMatMulTN(dy.view(), x.view(), c.begin, c.gradient_views, Write::kOverwrite, scratch);
  std::vector<double> want_y(static_cast<size_t>(rows * n), 0.0), want_dx(static_cast<size_t>(rows * k), 0.0);
  const auto xs = x.Values(), dys = dy.Values();
  for (size_t e = 0; e < c.weights.size(); ++e) {
    const auto w = c.weights[e]->Values();
    std::vector<double> want_dw(static_cast<size_t>(n * k), 0.0);
    const Sizes s = c.sizes(e);
    MatMulNTRef(s.m, n, k, xs.data() + c.first(e) * k, w.data(), want_y.data() + c.first(e) * n);
    MatMulNNRef(s.m, n, k, dys.data() + c.first(e) * n, w.data(), want_dx.data() + c.first(e) * k);
    MatMulTNRef(s.m, n, k, dys.data() + c.first(e) * n, xs.data() + c.first(e) * k, want_dw.data());
    EXPECT_TRUE(SameBits(c.gradients[e]->Floats(), Rounded<float>(want_dw))) << "expert " << e;
    EXPECT_TRUE(c.gradients[e]->PaddingUntouched());
  }
  EXPECT_TRUE(SameBits(y.Floats(), Rounded<float>(want_y)));
  EXPECT_TRUE(SameBits(dx.Floats(), Rounded<float>(want_dx)));
  EXPECT_TRUE(y.PaddingUntouched());
  EXPECT_TRUE(dx.PaddingUntouched());
}

TEST(Gemm, GroupsWithEmptyExperts) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    CheckGrouped<float>();
    CheckGrouped<BF16>();
  });
}

template <class X>
std::vector<float> RandomProducts(Sizes s) {
  PaddedMatrix<X> x(s.m, s.k, 0, 0, RandomVector(s.m * s.k, 1)), dy(s.m, s.n, 0, 0, RandomVector(s.m * s.n, 2));
  PaddedMatrix<float> w(s.n, s.k, 0, 0, RandomVector(s.n * s.k, 3)), y(s.m, s.n), dx(s.m, s.k), dw(s.n, s.k);
  Arena scratch = DirtyArena(GemmScratchBytes(s.m, s.n, s.k));
  MatMulNT(x.view(), {w.view(), {}}, y.view(), Write::kOverwrite, scratch);
  MatMulNN(dy.view(), {w.view(), {}}, dx.view(), Write::kOverwrite, scratch);
  MatMulTN(dy.view(), x.view(), dw.view(), Write::kOverwrite, scratch);
  std::vector<float> all = y.Floats();
  for (const auto* m : {&dx, &dw}) {
    const auto f = m->Floats();
    all.insert(all.end(), f.begin(), f.end());
  }
  return all;
}

// The long sums with few outputs are where a library is tempted to split the sum. Wide ones are cut finer for many threads.
void CheckBitsForAnyThreads() {
  for (const Sizes s : {Sizes{1, 300, 500}, Sizes{64, 64, 3000}, Sizes{4096, 64, 64}, Sizes{700, 300, 300}, Sizes{5, 33, 1000},
                        Sizes{33, 1000, 520}, Sizes{257, 600, 100}, Sizes{300, 258, 64}}) {
    SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k);
    ExpectSameForAnyThreads([&] { return RandomProducts<float>(s); });
    ExpectSameForAnyThreads([&] { return RandomProducts<BF16>(s); });
  }
}
TEST(Gemm, BitsDoNotDependOnThreads) { CheckBitsForAnyThreads(); }

// oneDNN is pinned by a process's first product: run alone (gemm_bits_avx2_test).
TEST(Gemm, DISABLED_BitsDoNotDependOnThreadsOnAVX2) {
  PinSimdTarget("avx2");
  CheckBitsForAnyThreads();
}

TEST(Gemm, NaNStaysWithItsRow) {
  const int64_t m = 20, n = 30, k = 40;
  auto values = Integers(m * k, 1);
  values[static_cast<size_t>(7 * k + 3)] = std::nan("");
  PaddedMatrix<float> x(m, k, 0, 0, values), w(n, k, 0, 0, Integers(n * k, 2)), y(m, n);
  Arena scratch = DirtyArena(GemmScratchBytes(m, n, k));
  MatMulNT(x.view(), {w.view(), {}}, y.view(), Write::kOverwrite, scratch);
  const auto got = y.Floats();
  for (int64_t i = 0; i < m * n; ++i) EXPECT_EQ(std::isnan(got[static_cast<size_t>(i)]), i / n == 7);
}

}  // namespace
}  // namespace fathom

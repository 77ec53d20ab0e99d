#include "fathom/kernels/gemm/few_rows.h"

#include "fathom/kernels/gemm/few_rows_ref.h"
#include "fathom/kernels/gemm/gemm_test_data.h"
#include "fathom/kernels/simd/simd.h"

namespace fathom {
namespace {

struct Sizes {
  int64_t m, n, k;
};
// Every number of rows; columns that streams divide and don't; sums around lines and scale blocks.
constexpr Sizes kSizes[] = {{1, 1, 1},    {2, 3, 7},     {3, 13, 31},   {4, 8, 64},   {5, 9, 65},    {6, 130, 127}, {7, 5, 128},
                            {8, 12, 130}, {1, 257, 576}, {8, 33, 1536}, {1, 6, 7168}, {11, 21, 192}, {16, 7, 300}};

void Multiply(ConstView x, const WeightView& w, View y, Write write) {
  Arena scratch(FewRowsScratchBytes(NumThreads(), w.value.dim(0), x.dim(1)));
  EXPECT_TRUE(IsFewRows(x, w));
  RunFewRows(
      1,
      [&](int64_t) {
        return FewRowsProduct{x, w, y, write};
      },
      scratch);
}

template <class X, class Y>
void CheckExact(Sizes s, DType weight, bool e8m0, Write write, int64_t gap) {
  SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << " weight " << DTypeName(weight) << " x "
                                  << DTypeName(DTypeOf<X>::value) << " y " << DTypeName(DTypeOf<Y>::value));
  PaddedMatrix<X> x(s.m, s.k, gap, gap % 4, Integers(s.m * s.k, 3));
  TestWeight w(weight, s.n, s.k, e8m0);
  PaddedMatrix<Y> y(s.m, s.n, gap, gap % 3);
  if (write == Write::kAdd) y.Set(Integers(s.m * s.n, 5));
  std::vector<double> want = FewRowsRef(s.m, s.n, s.k, x.Values(), w.Values());
  const auto before = y.Values();
  for (size_t i = 0; i < want.size() && write == Write::kAdd; ++i) want[i] += before[i];
  Multiply(x.view(), w.view(), y.view(), write);
  EXPECT_TRUE(SameBits(y.Floats(), Rounded<Y>(want)));
  EXPECT_TRUE(y.PaddingUntouched());
}

TEST(FewRows, ExactOnIntegers) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const Sizes s : kSizes) {
      if (s.m <= kFewRowsF32) CheckExact<float, float>(s, DType::kF32, false, Write::kAdd, 5);
      for (const DType weight : {DType::kBF16, DType::kF8E4M3}) {
        CheckExact<float, float>(s, weight, false, Write::kOverwrite, 0);
        CheckExact<float, BF16>(s, weight, true, Write::kAdd, 3);
        CheckExact<BF16, float>(s, weight, true, Write::kAdd, 7);
        CheckExact<BF16, BF16>(s, weight, false, Write::kOverwrite, 1);
      }
    }
  });
}

template <class X, class W>
void CheckClose(Sizes s, double bound) {
  PaddedMatrix<X> x(s.m, s.k, 0, 0, RandomVector(s.m * s.k, 1));
  PaddedMatrix<W> w(s.n, s.k, 0, 0, RandomVector(s.n * s.k, 2));
  PaddedMatrix<float> y(s.m, s.n);
  Multiply(x.view(), {w.view(), {}}, y.view(), Write::kOverwrite);
  EXPECT_TRUE(RelativeL2(y.Floats(), FewRowsRef(s.m, s.n, s.k, x.Values(), w.Values()), bound)) << s.m << "x" << s.n << "x" << s.k;
}

TEST(FewRows, SumsInF32) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const Sizes s : kSizes) {
      const double bound = s.k < 2000 ? 1e-6 : 5e-6;  // the baseline adds one by one
      if (s.m <= kFewRowsF32) CheckClose<float, float>(s, bound);
      CheckClose<float, BF16>(s, bound);
      CheckClose<BF16, BF16>(s, bound);
    }
  });
}

// Row c of the weight holds nothing but code c, once, at a column that moves through a line.
template <class X>
void CheckEveryCode() {
  constexpr int64_t kCodes = 256, k = 192;
  std::vector<F8E4M3> codes(kCodes * k, F8E4M3{0});
  const std::vector<float> scales = {0.25f, 1.7f, 1.7f, 3.0f};
  PaddedMatrix<X> x(1, k, 0, 0, std::vector<double>(k, 1.0));
  PaddedMatrix<float> y(1, kCodes);
  const WeightView w{ViewOf(static_cast<const F8E4M3*>(codes.data()), Shape{kCodes, k}), ViewOf(scales.data(), Shape{2, 2})};
  for (int64_t shift = 0; shift < k; shift += 37) {
    for (int64_t c = 0; c < kCodes; ++c) codes[static_cast<size_t>(c * k + (c + shift) % k)] = F8E4M3{static_cast<uint8_t>(c)};
    Multiply(x.view(), w, y.view(), Write::kOverwrite);
    const auto got = y.Floats();
    for (int64_t c = 0; c < kCodes; ++c) {
      const float value = ToFloat(F8E4M3{static_cast<uint8_t>(c)}),
                  scale = scales[static_cast<size_t>(c / 128 * 2 + (c + shift) % k / 128)];
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(got[static_cast<size_t>(c)])) << "code " << c;
      } else {
        EXPECT_EQ(got[static_cast<size_t>(c)], value * scale) << "code " << c;
      }
      codes[static_cast<size_t>(c * k + (c + shift) % k)] = F8E4M3{0};
    }
  }
}

TEST(FewRows, EveryFP8CodeIsExact) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    CheckEveryCode<float>();
    CheckEveryCode<BF16>();
  });
}

TEST(FewRows, ScalesAtTheEndsOfTheirRange) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    const std::vector<F8E4M3> codes = {ToF8E4M3(1.0f), ToF8E4M3(-2.0f)};
    PaddedMatrix<float> x(1, 2, 0, 0, std::vector<double>{1.0, 0.25}), y(1, 1);
    for (const int code : {0, 1, 127, 254, 255}) {
      const std::vector<F8E8M0> scale = {{static_cast<uint8_t>(code)}};
      Multiply(x.view(), {ViewOf(codes.data(), Shape{1, 2}), ViewOf(scale.data(), Shape{1, 1})}, y.view(), Write::kOverwrite);
      const float got = y.Floats()[0], want = 0.5f * ToFloat(scale[0]);
      EXPECT_TRUE(code == 255 ? std::isnan(got) : got == want) << code << ": " << got << " for " << want;
    }
  });
}

// The rows of `w` one behind the other from `offset` bytes behind a line of the cache on, NaN before and behind them.
class ShiftedBytes {
 public:
  ShiftedBytes(ConstView w, int64_t offset)
      : bytes_(static_cast<size_t>(w.NumBytes()) + 256, std::byte{0xff}), dtype_(w.dtype()), shape_(w.shape()) {
    data_ = bytes_.data() + (128 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64) + offset;
    const int64_t row = w.dim(1) * DTypeSize(dtype_);
    for (int64_t i = 0; i < w.dim(0); ++i) {
      std::memcpy(data_ + i * row, w.raw() + i * w.stride() * DTypeSize(dtype_), static_cast<size_t>(row));
    }
  }
  ConstView view() const { return {data_, dtype_, shape_}; }

 private:
  std::vector<std::byte> bytes_;
  DType dtype_;
  Shape shape_;
  std::byte* data_;
};

template <class X>
void CheckOffsets(Sizes s, DType weight) {
  SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << " weight " << DTypeName(weight));
  PaddedMatrix<X> x(s.m, s.k, 0, 0, RandomVector(s.m * s.k, 1));
  PaddedMatrix<float> y(s.m, s.n);
  TestWeight w(weight, s.n, s.k);
  const auto at = [&](int64_t offset) {
    const ShiftedBytes shifted(w.view().value, offset);
    Multiply(x.view(), {shifted.view(), w.view().scale}, y.view(), Write::kOverwrite);
    return y.Floats();
  };
  const std::vector<float> want = at(0);
  EXPECT_TRUE(RelativeL2(want, FewRowsRef(s.m, s.n, s.k, x.Values(), w.Values()), 1e-6));
  for (const int64_t offset : {4, 8, 16, 20, 24, 32, 40, 48, 56})
    EXPECT_TRUE(SameBits(at(offset), want)) << offset << " bytes behind a line";
}

// Checkpoints have a header of any length before the weights.
TEST(FewRows, BitsDoNotDependOnWhereWeightsLie) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const Sizes s :
         {Sizes{1, 7, 64}, Sizes{1, 1, 128}, Sizes{1, 2, 320}, Sizes{1, 5, 256}, Sizes{2, 11, 704}, Sizes{5, 6, 192}, Sizes{8, 3, 96}}) {
      CheckOffsets<float>(s, DType::kF32);
      for (const DType weight : {DType::kBF16, DType::kF8E4M3}) {
        CheckOffsets<float>(s, weight);
        CheckOffsets<BF16>(s, weight);
      }
    }
  });
}

// One row here and there among many experts, as a decoded token has them.
std::vector<float> Grouped(DType weight) {
  const int64_t n = 70, k = 160, experts = 12;
  constexpr int64_t kRows[] = {0, 1, 0, 0, 2, 1, 0, 8, 1, 0, 3, 0};
  std::vector<std::unique_ptr<TestWeight>> w;
  for (uint64_t e = 0; e < experts; ++e) w.push_back(std::make_unique<TestWeight>(weight, n, k, false, e));
  PaddedMatrix<float> x(16, k, 3, 1, RandomVector(16 * k, 1)), y(16, n, 2, 0);
  Arena scratch(FewRowsScratchBytes(NumThreads(), n, k));
  std::vector<int64_t> begin = {0};
  for (const int64_t rows : kRows) begin.push_back(begin.back() + rows);
  RunFewRows(
      experts,
      [&](int64_t e) {
        const auto b = begin[static_cast<size_t>(e)], end = begin[static_cast<size_t>(e) + 1];
        return FewRowsProduct{x.view().Rows(b, end), w[static_cast<size_t>(e)]->view(), y.view().Rows(b, end), Write::kOverwrite};
      },
      scratch);
  std::vector<double> want;
  for (size_t e = 0; e < experts; ++e) {
    const auto xs = x.Values();
    const std::vector<double> rows(xs.begin() + begin[e] * k, xs.begin() + begin[e + 1] * k);
    const auto own = FewRowsRef(kRows[e], n, k, rows, w[e]->Values());
    want.insert(want.end(), own.begin(), own.end());
  }
  EXPECT_TRUE(RelativeL2(y.Floats(), want, 1e-6));
  EXPECT_TRUE(y.PaddingUntouched());
  return y.Floats();
}

TEST(FewRows, BitsDoNotDependOnThreads) {
  for (const DType weight : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    ExpectSameForAnyThreads([&] { return Grouped(weight); });
    ExpectSameForAnyThreads([&] {
      PaddedMatrix<float> x(3, 500, 0, 0, RandomVector(1500, 1)), y(3, 401);
      TestWeight w(weight, 401, 500);
      Multiply(x.view(), w.view(), y.view(), Write::kOverwrite);
      return y.Floats();
    });
  }
}

// Every row as it comes out alone, among `rows` others.
template <class X>
void CheckRowsAlone(DType weight, Sizes s) {
  SCOPED_TRACE(testing::Message() << s.m << "x" << s.n << "x" << s.k << " weight " << DTypeName(weight));
  PaddedMatrix<X> x(s.m, s.k, 3, 1, RandomVector(s.m * s.k, 1)), y(s.m, s.n, 2, 0);
  TestWeight w(weight, s.n, s.k);
  Arena scratch(FewRowsScratchBytes(NumThreads(), s.n, s.k));
  const auto run = [&](int64_t begin, int64_t end, View out) {
    RunFewRows(
        1,
        [&](int64_t) {
          return FewRowsProduct{x.view().Rows(begin, end), w.view(), out, Write::kOverwrite};
        },
        scratch);
  };
  run(0, s.m, y.view());
  const auto together = y.Floats();
  for (const int64_t m : {int64_t{0}, s.m / 2, s.m - 1}) {
    PaddedMatrix<X> one(1, s.n);
    run(m, m + 1, one.view());
    const auto at = together.begin() + m * s.n;
    EXPECT_TRUE(SameBits(one.Floats(), std::vector<float>(at, at + s.n))) << "row " << m;
  }
}

TEST(FewRows, BitsOfARowDoNotDependOnTheOthers) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t m : {2, 3, 5, 8, 9, 16, 17, 31, 64, 65, 130}) {
      for (const DType weight : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3}) {
        CheckRowsAlone<float>(weight, {m, 37, 200});
        CheckRowsAlone<BF16>(weight, {m, 37, 200});
      }
    }
    CheckRowsAlone<float>(DType::kBF16, {20, 150, 1030});  // several pieces
    CheckRowsAlone<BF16>(DType::kF8E4M3, {20, 270, 1030});
  });
}

TEST(FewRows, LeavesOtherProductsAlone) {
  PaddedMatrix<float> x(17, 4), w(3, 4);
  PaddedMatrix<BF16> x16(1, 4), w_bf16(3, 4);
  PaddedMatrix<F16> w16(3, 4);
  EXPECT_FALSE(IsFewRows(x.view(), {w_bf16.view(), {}}));
  EXPECT_TRUE(IsFewRows(x.view().Rows(0, 16), {w_bf16.view(), {}}));
  EXPECT_FALSE(IsFewRows(x.view().Rows(0, 9), {w.view(), {}}));
  EXPECT_FALSE(IsFewRows(x16.view(), {w.view(), {}}));
  EXPECT_FALSE(IsFewRows(x.view().Rows(0, 1), {w16.view(), {}}));
  EXPECT_TRUE(IsFewRows(x.view().Rows(0, 8), {w.view(), {}}));
}

}  // namespace
}  // namespace fathom

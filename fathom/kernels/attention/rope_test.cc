#include "fathom/kernels/attention/rope.h"

#include <cmath>

#include "fathom/kernels/attention/rope_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

// cos and sin of position * 100^(-i/half), rounded to float.
std::vector<double> Table(int64_t positions, int64_t half, double (*function)(double)) {
  std::vector<double> table;
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::pow(100.0, -static_cast<double>(i) / static_cast<double>(half));
      table.push_back(static_cast<float>(function(angle)));
    }
  }
  return table;
}
double Cos(double x) { return std::cos(x); }
double Sin(double x) { return std::sin(x); }

struct Case {
  int64_t tokens, heads, head_stride, offset, d, columns, gap, shift;
};

std::vector<double> Row(const std::vector<double>& m, int64_t row, int64_t columns) {
  return {m.begin() + row * columns, m.begin() + (row + 1) * columns};
}

template <class T>
void CheckRope(const Case& c, RopePairs pairs, RopeDirection direction) {
  SCOPED_TRACE(testing::Message() << c.heads << " heads, d " << c.d << ", offset " << c.offset << ", shift " << c.shift);
  const int64_t length = 50, half = c.d / 2;
  PaddedMatrix<T> x(c.tokens, c.columns, c.gap, c.shift, RandomVector(c.tokens * c.columns, 1));
  PaddedMatrix<float> cos(length, half, 1, 0, Table(length, half, Cos)), sin(length, half, 1, 1, Table(length, half, Sin));
  std::vector<int32_t> positions;
  for (int64_t t = 0; t < c.tokens; ++t) positions.push_back(static_cast<int32_t>((t * 17 + 3) % length));
  std::vector<double> want = x.Values();
  for (int64_t t = 0; t < c.tokens; ++t) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const auto head = want.begin() + t * c.columns + c.offset + h * c.head_stride;
      const auto turned = RopeRef(std::vector<double>(head, head + c.d), Row(cos.Values(), positions[static_cast<size_t>(t)], half),
                                  Row(sin.Values(), positions[static_cast<size_t>(t)], half), pairs, direction);
      std::copy(turned.begin(), turned.end(), head);
    }
  }
  RopeRotate(x.view(), {c.heads, c.head_stride, c.offset}, {cos.view(), sin.view(), positions}, pairs, direction);
  EXPECT_TRUE(Close(x.Floats(), want, 3e-7, sizeof(T) == 4 ? 1e-6 : 0.005));
  EXPECT_TRUE(x.PaddingUntouched());
}

TEST(Rope, EqualsReferenceAndLeavesTheRestAlone) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const RopePairs pairs : {RopePairs::kInterleaved, RopePairs::kHalves}) {
      for (const RopeDirection direction : {RopeDirection::kForward, RopeDirection::kInverse}) {
        for (const Case& c : {Case{3, 4, 96, 32, 64, 4 * 96, 0, 0}, Case{5, 1, 0, 512, 64, 576, 3, 1}, Case{2, 3, 11, 1, 10, 34, 1, 3},
                              Case{3, 2, 4, 0, 2, 8, 0, 0}, Case{2, 2, 128, 0, 34, 256, 2, 1}}) {
          CheckRope<float>(c, pairs, direction);
          CheckRope<BF16>(c, pairs, direction);
        }
      }
    }
  });
}

TEST(Rope, BackwardIsTheInverse) {
  const int64_t d = 8;
  const auto x = RandomVector(d, 1), dy = RandomVector(d, 2);
  const auto cos = Row(Table(7, d / 2, Cos), 6, d / 2), sin = Row(Table(7, d / 2, Sin), 6, d / 2);
  for (const RopePairs pairs : {RopePairs::kInterleaved, RopePairs::kHalves}) {
    const auto f = [&](const std::vector<std::complex<double>>& z) { return RopeRef(z, cos, sin, pairs, RopeDirection::kForward); };
    EXPECT_TRUE(RelativeL2(RopeRef(dy, cos, sin, pairs, RopeDirection::kInverse), ComplexStepGradient(f, x, dy), 1e-12));
  }
}

TEST(Rope, KeepsNormsAndUndoesItself) {
  const int64_t tokens = 9, d = 64;
  const auto values = RandomVector(tokens * d, 1);
  PaddedMatrix<float> x(tokens, d, 0, 0, values), cos(tokens, d / 2, 0, 0, Table(tokens, d / 2, Cos)),
      sin(tokens, d / 2, 0, 0, Table(tokens, d / 2, Sin));
  const std::vector<int32_t> positions = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  RopeRotate(x.view(), {1, 0, 0}, {cos.view(), sin.view(), positions}, RopePairs::kInterleaved, RopeDirection::kForward);
  for (int64_t t = 0; t < tokens; ++t) {
    double before = 0, after = 0;
    for (int64_t i = 0; i < d; ++i) before += values[static_cast<size_t>(t * d + i)] * values[static_cast<size_t>(t * d + i)];
    for (const double v : Row(x.Values(), t, d)) after += v * v;
    EXPECT_NEAR(after, before, 1e-5 * before);
  }
  RopeRotate(x.view(), {1, 0, 0}, {cos.view(), sin.view(), positions}, RopePairs::kInterleaved, RopeDirection::kInverse);
  EXPECT_TRUE(Close(x.Floats(), values, 1e-6, 1e-6));
}

TEST(Rope, BitsDoNotDependOnThreads) {
  const int64_t tokens = 300, d = 64;
  ExpectSameForAnyThreads([&] {
    PaddedMatrix<float> x(tokens, 4 * d, 0, 0, RandomVector(tokens * 4 * d, 1));
    PaddedMatrix<float> cos(8, d / 2, 0, 0, Table(8, d / 2, Cos)), sin(8, d / 2, 0, 0, Table(8, d / 2, Sin));
    std::vector<int32_t> positions;
    for (int32_t t = 0; t < tokens; ++t) positions.push_back(t % 8);
    RopeRotate(x.view(), {4, d, 0}, {cos.view(), sin.view(), positions}, RopePairs::kHalves, RopeDirection::kForward);
    return x.Floats();
  });
}

}  // namespace
}  // namespace fathom

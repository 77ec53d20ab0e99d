#include "fathom/testing/close.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace fathom {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Close, AcceptsAndRejects) {
  const std::vector<double> want = {1.0, -2.0, kInf};
  EXPECT_TRUE(Close(std::vector<double>{1.0, -2.0, kInf}, want, 0, 0));
  EXPECT_FALSE(Close(std::vector<double>{1.0, -2.1, kInf}, want, 1e-3, 0));
  EXPECT_FALSE(Close(std::vector<double>{1.0, kNaN, kInf}, want, 1e9, 1e9)) << "NaN must never pass";
  EXPECT_FALSE(Close(std::vector<double>{1.0, -2.0, -kInf}, want, 1, 1));
  EXPECT_FALSE(Close(std::vector<double>{1.0, -2.0}, want, 1, 1));
}

TEST(RelativeL2, AcceptsAndRejects) {
  const std::vector<double> want = {3.0, 4.0};
  EXPECT_TRUE(RelativeL2(std::vector<double>{3.0, 4.0 + 4e-6}, want, 1e-6));
  EXPECT_FALSE(RelativeL2(std::vector<double>{3.0, 4.1}, want, 1e-3));
  EXPECT_FALSE(RelativeL2(std::vector<double>{kNaN, 4.0}, want, 1e9));
  EXPECT_FALSE(RelativeL2(std::vector<double>{1.0, 0.0}, std::vector<double>{0.0, 0.0}, 0.5));
}

TEST(SameBits, TellsZerosApart) {
  EXPECT_TRUE(SameBits(std::vector<float>{0.0f}, std::vector<float>{0.0f}));
  EXPECT_FALSE(SameBits(std::vector<float>{0.0f}, std::vector<float>{-0.0f}));
}

TEST(ComplexStepGradient, OfAProduct) {
  const ComplexFunction f = [](const auto& x) { return std::vector<std::complex<double>>{x[0] * x[1], std::exp(x[0])}; };
  const auto g = ComplexStepGradient(f, std::vector<double>{2.0, 3.0}, std::vector<double>{1.0, 0.5});
  EXPECT_NEAR(g[0], 3.0 + 0.5 * std::exp(2.0), 1e-14);
  EXPECT_NEAR(g[1], 2.0, 1e-15);
}

}  // namespace
}  // namespace fathom

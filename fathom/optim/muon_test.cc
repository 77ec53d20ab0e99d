#include "fathom/optim/muon.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fathom/testing/close.h"

namespace fathom {
namespace {

using Matrix = std::vector<double>;  // row-major

Matrix Product(const Matrix& a, const Matrix& b, size_t n, size_t m, size_t k) {
  Matrix c(n * k);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < m; ++j) {
      for (size_t l = 0; l < k; ++l) c[i * k + l] += a[i * m + j] * b[j * k + l];
    }
  }
  return c;
}

Matrix Transposed(const Matrix& a, size_t n, size_t m) {
  Matrix t(a.size());
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < m; ++j) t[j * n + i] = a[i * m + j];
  }
  return t;
}

// The formulas as they stand, in double, with x x^T of the rows whatever the shape.
void Reference(const MuonStep& s, Matrix& w, Matrix& m, const Matrix& g, size_t n, size_t k) {
  const double t = static_cast<double>(s.t);
  Matrix x(w.size());
  double squares = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double gi = g[i] * s.grad_scale;
    m[i] = s.beta * m[i] + (1 - s.beta) * gi;
    x[i] = s.beta * m[i] / (1 - std::pow(s.beta, t + 1)) + (1 - s.beta) * gi / (1 - std::pow(s.beta, t));
    squares += x[i] * x[i];
  }
  for (double& v : x) v /= std::sqrt(squares) + s.eps;
  for (int round = 0; round < 5; ++round) {
    const Matrix gram = Product(x, Transposed(x, n, k), n, k, n), once = Product(gram, x, n, n, k), twice = Product(gram, once, n, n, k);
    for (size_t i = 0; i < x.size(); ++i) x[i] = 3.4445 * x[i] - 4.775 * once[i] + 2.0315 * twice[i];
  }
  const double out = static_cast<double>(n), in = static_cast<double>(k);
  const double scale = s.consistent_rms ? std::sqrt(std::max(out, in)) * *s.consistent_rms : std::sqrt(std::max(1.0, out / in));
  for (size_t i = 0; i < w.size(); ++i) w[i] -= s.learning_rate * (scale * x[i] + s.weight_decay * w[i]);
}

void Check(int64_t n, int64_t k, std::optional<double> rms) {
  SCOPED_TRACE(testing::Message() << n << " x " << k);
  const int64_t count = n * k;
  std::vector<float> w = ToFloats(RandomVector(count, 1)), m = ToFloats(RandomVector(count, 2, 0.01)), g = ToFloats(RandomVector(count, 3));
  std::vector<BF16> copy(static_cast<size_t>(count));
  Matrix want_w(w.begin(), w.end()), want_m(m.begin(), m.end()), gradient(g.begin(), g.end());
  Arena scratch(MuonScratchBytes(n, k));
  for (int64_t t = 1; t <= 2; ++t) {
    const MuonStep step{0.1, 0.95, 0.01, 1e-8, t, 0.3, rms};
    MuonUpdate(step, {ViewOf(w.data(), {n, k}), ViewOf(m.data(), {n, k}), ViewOf(g.data(), {n, k}), ViewOf(copy.data(), {n, k})}, scratch);
    Reference(step, want_w, want_m, gradient, static_cast<size_t>(n), static_cast<size_t>(k));
  }
  EXPECT_TRUE(Close(m, want_m, 1e-6, 1e-6));
  EXPECT_TRUE(Close(w, want_w, 2e-5, 2e-5));
  for (size_t i = 0; i < w.size(); ++i) EXPECT_EQ(copy[i], ToBF16(w[i]));
}

TEST(Muon, EqualsTheFormulas) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {5, 5}, {3, 40}, {40, 3}, {33, 64}, {64, 17}, {1, 9}}) {
    Check(n, k, std::nullopt);
    Check(n, k, 0.2);
  }
}

// What is stored as BF16 is a neighbour of what F32 would hold.
TEST(Muon, RoundsByChance) {
  constexpr int64_t kSize = 8, kCount = kSize * kSize;
  std::vector<float> w(kCount, 1), m(kCount), g = ToFloats(RandomVector(kCount, 3));
  std::vector<BF16> w16(kCount, ToBF16(1)), m16(kCount);
  const auto matrix = [](auto& x) { return ViewOf(x.data(), {kSize, kSize}); };
  Arena scratch(MuonScratchBytes(kSize, kSize));
  const MuonStep step{.learning_rate = 1e-3,
                      .beta = 0.95,
                      .weight_decay = 0,
                      .eps = 1e-8,
                      .t = 1,
                      .grad_scale = 1,
                      .consistent_rms = {},
                      .rounding = {true, 5}};
  MuonUpdate(step, {matrix(w), matrix(m), matrix(g)}, scratch);
  MuonUpdate(step, {matrix(w16), matrix(m16), matrix(g)}, scratch);
  int64_t moved = 0;
  for (size_t i = 0; i < kCount; ++i) {
    EXPECT_NEAR(ToFloat(w16[i]), w[i], 0x1p-7);
    EXPECT_NEAR(ToFloat(m16[i]), m[i], 0x1p-7 * std::fabs(m[i]));
    moved += ToFloat(w16[i]) != 1;
  }
  EXPECT_GT(moved, 0);  // rounded to the nearest, none would
}

// Every singular value ends near 1, whatever it was: of a diagonal gradient the diagonal.
TEST(Muon, MovesAlongEverySingularVectorAlike) {
  constexpr int64_t kSize = 6;
  std::vector<float> w(kSize * kSize), m(kSize * kSize), g(kSize * kSize);
  for (size_t i = 0; i < kSize; ++i) g[i * kSize + i] = static_cast<float>(1 + i);
  Arena scratch(MuonScratchBytes(kSize, kSize));
  MuonUpdate({1, 0.95, 0, 1e-8, 1, 1, std::nullopt},
             {ViewOf(w.data(), {kSize, kSize}), ViewOf(m.data(), {kSize, kSize}), ViewOf(g.data(), {kSize, kSize})}, scratch);
  for (size_t i = 0; i < kSize; ++i) EXPECT_NEAR(w[i * kSize + i], -1, 0.4) << i;
}

}  // namespace
}  // namespace fathom

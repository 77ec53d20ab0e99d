// The FP8 recipe's products against the plain sum over what the quantiser left; the quantiser's bits are fp8_quantize_test's.
#include "fathom/layers/linear.h"

#include "fathom/kernels/quant/fp8_quantize.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr int64_t kM = 150, kN = 133, kK = 260;  // edge tiles everywhere

std::vector<double> Through(const std::vector<double>& x, int64_t rows, int64_t columns, Fp8Tile tile) {
  PaddedMatrix<float> from(rows, columns, 0, 0, x), to(rows, columns);
  RoundToFp8(from.view(), tile, ScaleFormat::kF32, to.view());
  return to.Values();
}

// c [m,n] = sum_k a(i,k) b(j,k).
template <class A, class B>
std::vector<double> Product(int64_t m, int64_t n, int64_t k, A a, B b) {
  std::vector<double> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) c[static_cast<size_t>(i * n + j)] += a(i, l) * b(j, l);
    }
  }
  return c;
}

auto Element(const std::vector<double>& x, int64_t columns) {
  return [&x, columns](int64_t i, int64_t j) { return x[static_cast<size_t>(i * columns + j)]; };
}
auto Transposed(const std::vector<double>& x, int64_t columns) {
  return [&x, columns](int64_t i, int64_t j) { return x[static_cast<size_t>(j * columns + i)]; };
}

Tensor TensorOf(const std::vector<double>& x, Shape shape) {
  Tensor t(DType::kF32, shape);
  std::copy(x.begin(), x.end(), t.mutable_data<float>());
  return t;
}

std::vector<float> Floats(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.NumElements()}; }

class Fp8Linear : public testing::Test {
 protected:
  std::vector<double> x_ = PaddedMatrix<float>(kM, kK, 0, 0, RandomVector(kM* kK, 1)).Values();
  std::vector<double> w_ = PaddedMatrix<float>(kN, kK, 0, 0, RandomVector(kN* kK, 2)).Values();
  std::vector<double> dy_ = PaddedMatrix<float>(kM, kN, 0, 0, RandomVector(kM* kN, 3)).Values();
  Tensor x = TensorOf(x_, {kM, kK}), w = TensorOf(w_, {kN, kK}), dy = TensorOf(dy_, {kM, kN});
  Arena saved_{1 << 20}, scratch_{1 << 26};
  Ctx ctx_{saved_, scratch_, DType::kF32, true};
};

TEST_F(Fp8Linear, Forward) {
  Tensor y(DType::kF32, {kM, kN});
  LinearForward(ctx_, {w, {}}, x, y.mutable_view());
  const auto xq = Through(x_, kM, kK, Fp8Tile::k1x128), wq = Through(w_, kN, kK, Fp8Tile::k128x128);
  EXPECT_TRUE(Close(Floats(y), Product(kM, kN, kK, Element(xq, kK), Element(wq, kK)), 1e-4, 1e-5));
}

TEST_F(Fp8Linear, Backward) {
  Tensor dx(DType::kF32, {kM, kK});
  Weight grad{Tensor(DType::kF32, {kN, kK}), {}};
  Fill(0, grad.value.mutable_view());
  LinearBackward(ctx_, {w, {}}, x, dy, dx.mutable_view(), Write::kOverwrite, grad);
  const auto dyq = Through(dy_, kM, kN, Fp8Tile::k1x128), wq = Through(w_, kN, kK, Fp8Tile::k128x128);
  EXPECT_TRUE(Close(Floats(dx), Product(kM, kK, kN, Element(dyq, kN), Transposed(wq, kK)), 1e-4, 1e-5));
  const auto dyd = Through(dy_, kM, kN, Fp8Tile::k128x1), xd = Through(x_, kM, kK, Fp8Tile::k128x1);
  EXPECT_TRUE(Close(Floats(grad.value), Product(kN, kK, kM, Transposed(dyd, kN), Transposed(xd, kK)), 1e-4, 1e-5));
}

TEST_F(Fp8Linear, ExpertsAreLayersOfTheirOwn) {
  const std::vector<int64_t> begin{0, 20, 20, kM};
  Weight weight[3], dw[3];
  std::vector<const Weight*> weights;
  std::vector<Weight*> grads;
  for (size_t e = 0; e < 3; ++e) {
    weight[e].value = TensorOf(RandomVector(kN * kK, 10 + e), {kN, kK});
    weights.push_back(&weight[e]);
    dw[e].value = Tensor(DType::kF32, {kN, kK});
    grads.push_back(&dw[e]);
  }
  Tensor y(DType::kF32, {kM, kN}), dx(DType::kF32, {kM, kK}), y_alone(DType::kF32, {kM, kN}), dx_alone(DType::kF32, {kM, kK});
  ExpertsForward(ctx_, weights, begin, x, y.mutable_view());
  ExpertsBackwardInput(ctx_, weights, begin, dy, dx.mutable_view(), Write::kOverwrite);
  ExpertsBackwardWeight(ctx_, weights, begin, x, dy, grads);
  for (size_t e = 0; e < 3; ++e) {
    Weight grad{Tensor(DType::kF32, {kN, kK}), {}};
    Fill(0, grad.value.mutable_view());
    if (begin[e] < begin[e + 1]) {
      const auto own = [&](Tensor& t) { return t.mutable_view().Rows(begin[e], begin[e + 1]); };
      LinearForward(ctx_, weight[e], own(x), own(y_alone));
      LinearBackward(ctx_, weight[e], own(x), own(dy), own(dx_alone), Write::kOverwrite, grad);
    }
    EXPECT_TRUE(Close(Floats(dw[e].value), ToDoubles(Floats(grad.value)), 1e-5, 1e-5)) << "expert " << e;
  }
  EXPECT_TRUE(Close(Floats(y), ToDoubles(Floats(y_alone)), 1e-5, 1e-5));
  EXPECT_TRUE(Close(Floats(dx), ToDoubles(Floats(dx_alone)), 1e-5, 1e-5));
  ExpertsBackwardInput(ctx_, weights, begin, dy, dx.mutable_view(), Write::kAdd);
  std::vector<double> twice = ToDoubles(Floats(dx_alone));
  for (double& v : twice) v *= 2;
  EXPECT_TRUE(Close(Floats(dx), twice, 1e-5, 1e-5));
}

TEST_F(Fp8Linear, TheExactFunctionsStayExact) {
  Tensor y(DType::kF32, {kM, kN});
  ExactLinearForward(ctx_, {w, {}}, x, y.mutable_view());
  EXPECT_TRUE(Close(Floats(y), Product(kM, kN, kK, Element(x_, kK), Element(w_, kK)), 1e-4, 1e-5));
}

}  // namespace
}  // namespace fathom

// Layers with adapters against plain layers on the merged matrix, in double; FP8 and BF16 bases as they are stored.
#include "fathom/layers/adapter.h"

#include <gtest/gtest.h>

#include "fathom/base/rng.h"
#include "fathom/kernels/quant/fp8_cast.h"
#include "fathom/layers/latent_attention.h"
#include "fathom/testing/close.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr int64_t kM = 37, kN = 133, kK = 150, kRank = 5;
using Doubles = std::vector<double>;

Tensor RandomTensor(Shape shape, uint64_t stream, DType dtype = DType::kF32) {
  const Doubles values = RandomVector(shape.NumElements(), stream);
  Tensor wide(DType::kF32, shape), t(dtype, shape);
  std::copy(values.begin(), values.end(), wide.mutable_data<float>());
  Cast(wide.view(), t.mutable_view());
  return t;
}

Doubles ValuesOf(ConstView v) {
  Tensor wide(DType::kF32, v.shape());
  Cast(v, wide.mutable_view());
  return {wide.data<float>(), wide.data<float>() + wide.NumElements()};
}
std::vector<float> Floats(ConstView v) {
  const Doubles values = ValuesOf(v);
  return {values.begin(), values.end()};
}

std::shared_ptr<LowRank> RandomAdapter(int64_t n, int64_t k, uint64_t stream) {
  return std::make_shared<LowRank>(LowRank{RandomTensor({kRank, k}, stream), RandomTensor({n, kRank}, stream + 1), 0.75});
}
// A gradient for the adapter alone, filled with what must be added to.
Weight AdapterGradient(const Weight& w) {
  Weight grad;
  grad.adapter = std::make_shared<LowRank>(LowRank{Tensor(DType::kF32, w.adapter->a.shape()), Tensor(DType::kF32, w.adapter->b.shape())});
  Fill(0.5f, grad.adapter->a.mutable_view());
  Fill(0.5f, grad.adapter->b.mutable_view());
  return grad;
}

// Block FP8 of random values.
Weight Fp8Weight(int64_t n, int64_t k, uint64_t stream) {
  Weight w;
  w.value = Tensor(DType::kF8E4M3, {n, k});
  w.scale_inv = Tensor(DType::kF32, {(n + 127) / 128, (k + 127) / 128});
  QuantizeFp8(RandomTensor({n, k}, stream).view(), ScaleFormat::kF32, w.value.mutable_view(), w.scale_inv.mutable_view());
  return w;
}

Doubles BaseOf(const Weight& w) {
  if (w.scale_inv.empty()) return ValuesOf(w.value.view());
  Doubles values;
  for (int64_t i = 0; i < w.value.dim(0); ++i) {
    for (int64_t j = 0; j < w.value.dim(1); ++j) {
      const double code = ToFloat(w.value.data<F8E4M3>()[i * w.value.dim(1) + j]);
      values.push_back(code * w.scale_inv.data<float>()[i / 128 * w.scale_inv.dim(1) + j / 128]);
    }
  }
  return values;
}

// W + f B A [n,k].
Doubles MergedOf(const Weight& w) {
  Doubles merged = BaseOf(w);
  if (!w.adapter) return merged;
  const int64_t n = w.value.dim(0), k = w.value.dim(1), r = w.adapter->a.dim(0);
  const Doubles a = ValuesOf(w.adapter->a.view()), b = ValuesOf(w.adapter->b.view());
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      for (int64_t l = 0; l < r; ++l)
        merged[static_cast<size_t>(i * k + j)] += w.adapter->factor * b[static_cast<size_t>(i * r + l)] * a[static_cast<size_t>(l * k + j)];
    }
  }
  return merged;
}

// z [m,n] = x [m,k] y, y [n,k] if transposed, else [k,n].
Doubles Product(int64_t m, int64_t n, int64_t k, const Doubles& x, const Doubles& y, bool x_transposed, bool y_transposed) {
  Doubles z(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) {
        z[static_cast<size_t>(i * n + j)] +=
            x[static_cast<size_t>(x_transposed ? l * m + i : i * k + l)] * y[static_cast<size_t>(y_transposed ? j * k + l : l * n + j)];
      }
    }
  }
  return z;
}

// 0.5 + factor z: what AdapterGradient holds after z is added.
Doubles Added(Doubles z, double factor) {
  for (double& v : z) v = 0.5 + factor * v;
  return z;
}

// dA = f B^T dW, dB = f dW A^T from the merged matrix' gradient dW = dy^T x.
void ExpectAdapterGradient(const Weight& w, const Weight& grad, const Doubles& dw, double tolerance) {
  const int64_t n = w.value.dim(0), k = w.value.dim(1);
  const Doubles a = ValuesOf(w.adapter->a.view()), b = ValuesOf(w.adapter->b.view());
  EXPECT_TRUE(
      Close(Floats(grad.adapter->a.view()), Added(Product(kRank, k, n, b, dw, true, false), w.adapter->factor), tolerance, tolerance));
  EXPECT_TRUE(
      Close(Floats(grad.adapter->b.view()), Added(Product(n, kRank, k, dw, a, false, true), w.adapter->factor), tolerance, tolerance));
}

class AdapterTest : public testing::Test {
 protected:
  Arena saved_{1 << 20}, scratch_{1 << 27};
  Ctx ctx_{saved_, scratch_, DType::kF32};
};

TEST_F(AdapterTest, LinearEqualsTheMergedMatrix) {
  const Tensor x = RandomTensor({kM, kK}, 1), dy = RandomTensor({kM, kN}, 2);
  Weight plain{RandomTensor({kN, kK}, 3), {}}, bf16{RandomTensor({kN, kK}, 4, DType::kBF16), {}}, fp8 = Fp8Weight(kN, kK, 5);
  for (Weight* w : {&plain, &bf16, &fp8}) {
    w->adapter = RandomAdapter(kN, kK, 7);
    Tensor y(DType::kF32, {kM, kN}), dx(DType::kF32, {kM, kK});
    LinearForward(ctx_, *w, x, y.mutable_view());
    EXPECT_TRUE(Close(Floats(y.view()), Product(kM, kN, kK, ValuesOf(x.view()), MergedOf(*w), false, true), 1e-4, 1e-5));
    Weight grad = AdapterGradient(*w);
    LinearBackward(ctx_, *w, x, dy, dx.mutable_view(), Write::kOverwrite, grad);
    EXPECT_TRUE(Close(Floats(dx.view()), Product(kM, kK, kN, ValuesOf(dy.view()), MergedOf(*w), false, false), 1e-4, 1e-5));
    EXPECT_TRUE(grad.value.empty());
    ExpectAdapterGradient(*w, grad, Product(kN, kK, kM, ValuesOf(dy.view()), ValuesOf(x.view()), true, false), 2e-4);
  }
}

TEST_F(AdapterTest, InBF16TheErrorIsThatOfItsRounding) {
  ctx_.compute = DType::kBF16;
  const Tensor x = RandomTensor({kM, kK}, 1, DType::kBF16), dy = RandomTensor({kM, kN}, 2, DType::kBF16);
  Weight w{RandomTensor({kN, kK}, 3, DType::kBF16), {}, RandomAdapter(kN, kK, 7)};
  Tensor y(DType::kBF16, {kM, kN}), dx(DType::kF32, {kM, kK});
  LinearForward(ctx_, w, x, y.mutable_view());
  EXPECT_TRUE(RelativeL2(Floats(y.view()), Product(kM, kN, kK, ValuesOf(x.view()), MergedOf(w), false, true), 6e-3));
  Weight grad = AdapterGradient(w);
  LinearBackward(ctx_, w, x, dy, dx.mutable_view(), Write::kOverwrite, grad);
  EXPECT_TRUE(RelativeL2(Floats(dx.view()), Product(kM, kK, kN, ValuesOf(dy.view()), MergedOf(w), false, false), 6e-3));
}

TEST_F(AdapterTest, ExpertsHaveTheirOwn) {
  const std::vector<int64_t> begin{0, 11, 11, 30, kM};
  const Tensor x = RandomTensor({kM, kK}, 1), dy = RandomTensor({kM, kN}, 2);
  std::vector<Weight> weights(4), grads(4);
  std::vector<const Weight*> w;
  std::vector<Weight*> g;
  for (uint64_t e = 0; e < 4; ++e) {
    weights[e] = e == 2 ? Fp8Weight(kN, kK, 20) : Weight{RandomTensor({kN, kK}, 10 + e), {}};
    if (e != 3) weights[e].adapter = RandomAdapter(kN, kK, 30 + 2 * e);
    if (e != 3) grads[e] = AdapterGradient(weights[e]);
    w.push_back(&weights[e]);
    g.push_back(&grads[e]);
  }
  Tensor y(DType::kF32, {kM, kN}), dx(DType::kF32, {kM, kK});
  ExpertsForward(ctx_, w, begin, x, y.mutable_view());
  ExpertsBackwardInput(ctx_, w, begin, dy, dx.mutable_view(), Write::kOverwrite);
  ExpertsBackwardWeight(ctx_, w, begin, x, dy, g);
  for (size_t e = 0; e < 4; ++e) {
    const int64_t from = begin[e], to = begin[e + 1], m = to - from;
    const Doubles xe = ValuesOf(x.view().Rows(from, to)), de = ValuesOf(dy.view().Rows(from, to)), merged = MergedOf(weights[e]);
    EXPECT_TRUE(Close(Floats(y.view().Rows(from, to)), Product(m, kN, kK, xe, merged, false, true), 1e-4, 1e-5)) << e;
    EXPECT_TRUE(Close(Floats(dx.view().Rows(from, to)), Product(m, kK, kN, de, merged, false, false), 1e-4, 1e-5)) << e;
    if (weights[e].adapter) ExpectAdapterGradient(weights[e], grads[e], Product(kN, kK, m, de, xe, true, false), 2e-4);
  }
}

// Some experts are trained and others not.
TEST_F(AdapterTest, FrozenExpertsHaveNoGradient) {
  const std::vector<int64_t> begin{0, 11, 30, kM};
  const Tensor x = RandomTensor({kM, kK}, 1), dy = RandomTensor({kM, kN}, 2);
  Weight weight{RandomTensor({kN, kK}, 3), {}}, grads[3];
  grads[1].value = Tensor(DType::kF32, {kN, kK});
  const std::vector<const Weight*> w(3, &weight);
  const std::vector<Weight*> g{&grads[0], &grads[1], &grads[2]};
  ExpertsBackwardWeight(ctx_, w, begin, x, dy, g);
  EXPECT_TRUE(grads[0].value.empty() && grads[2].value.empty());
  const Doubles want = Product(kN, kK, 19, ValuesOf(dy.view().Rows(11, 30)), ValuesOf(x.view().Rows(11, 30)), true, false);
  EXPECT_TRUE(Close(Floats(grads[1].value.view()), want, 1e-4, 1e-5));
}

// Heads of 9 and 7 rows: blocks of scales straddle them.
TEST_F(AdapterTest, AbsorbedAttentionTakesFp8AndAdapters) {
  const MlaShape shape{11, 9, 6, 7, 0.01f};
  constexpr int64_t kTokens = 23, kRankKv = 140, kChosen = 4;
  Weight w = Fp8Weight(shape.heads * 16, kRankKv, 5);
  w.adapter = RandomAdapter(shape.heads * 16, kRankKv, 7);
  Weight merged{Tensor(DType::kF32, w.value.shape()), {}};
  const Doubles values = MergedOf(w);
  std::copy(values.begin(), values.end(), merged.value.mutable_data<float>());
  const Tensor q = RandomTensor({kTokens, shape.heads * 15}, 11), rows = RandomTensor({kTokens, kRankKv + 6}, 12),
               d_o = RandomTensor({kTokens, shape.heads * 7}, 13);
  std::vector<int32_t> chosen(kTokens * kChosen, -1);
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t j = 0; j < std::min(kChosen, t + 1); ++j) chosen[static_cast<size_t>(t * kChosen + j)] = static_cast<int32_t>(t - j);
    std::sort(chosen.begin() + t * kChosen, chosen.begin() + t * kChosen + std::min(kChosen, t + 1));
  }
  const Segment segment{0, kTokens, 0, kTokens};
  struct Result {
    Tensor o, lse, dq, d_rows;
    Weight grad;
  };
  const auto run = [&](const Weight& weight, Weight grad) {
    Result r{Tensor(DType::kF32, d_o.shape()), Tensor(DType::kF32, {kTokens, shape.heads}), Tensor(DType::kF32, q.shape()),
             Tensor(DType::kF32, rows.shape()), std::move(grad)};
    const LatentAttention a{shape, weight, {&segment, 1}, chosen, kChosen, rows};
    LatentAttentionForward(ctx_, a, q, r.o.mutable_view(), r.lse.mutable_view());
    LatentAttentionBackward(ctx_, a, {q, r.o, r.lse, d_o, r.dq.mutable_view()}, r.d_rows.mutable_view(), r.grad);
    return r;
  };
  const Result got = run(w, AdapterGradient(w)), want = run(merged, {Tensor(DType::kF32, w.value.shape()), {}});
  EXPECT_TRUE(Close(Floats(got.o.view()), ValuesOf(want.o.view()), 1e-4, 1e-5));
  EXPECT_TRUE(Close(Floats(got.dq.view()), ValuesOf(want.dq.view()), 1e-4, 1e-5));
  EXPECT_TRUE(Close(Floats(got.d_rows.view()), ValuesOf(want.d_rows.view()), 1e-4, 1e-5));
  ExpectAdapterGradient(w, got.grad, ValuesOf(want.grad.value.view()), 1e-4);
}

}  // namespace
}  // namespace fathom

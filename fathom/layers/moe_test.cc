// The three ways to run experts against one obvious function, with gradients by its complex step.
#include "fathom/layers/moe.h"

#include <algorithm>
#include <complex>

#include "fathom/kernels/moe/moe_dispatch.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

constexpr int64_t kTokens = 26, kSequence = 13, kHidden = 7, kExperts = 5, kChosen = 2, kWidth = 6;

ModelConfig TinyConfig() {
  ModelConfig c;
  c.hidden_size = kHidden;
  c.moe_intermediate_size = kWidth;
  c.n_routed_experts = kExperts;
  c.num_experts_per_tok = kChosen;
  c.n_shared_experts = 0;
  c.topk_method = TopkMethod::kNoauxTc;
  c.scoring_func = ScoringFunc::kSigmoid;
  c.n_group = 1;
  c.topk_group = 1;
  c.norm_topk_prob = true;
  c.routed_scaling_factor = 2.5;
  return c;
}

MoeParams RandomParams() {
  MoeParams p;
  p.gate.value = RandomTensor({kExperts, kHidden}, 1);
  p.e_score_correction_bias.value = RandomTensor({kExperts}, 2);
  for (uint64_t e = 0; e < kExperts; ++e) {
    MlpParams m;
    m.gate_proj.value = RandomTensor({kWidth, kHidden}, 10 + e);
    m.up_proj.value = RandomTensor({kWidth, kHidden}, 20 + e);
    m.down_proj.value = RandomTensor({kHidden, kWidth}, 30 + e);
    p.experts.push_back(std::move(m));
  }
  return p;
}

MoeParams ZeroGradients() {
  MoeParams g = RandomParams();
  Fill(0, g.gate.value.mutable_view());
  for (MlpParams& expert : g.experts) {
    for (Weight* w : {&expert.gate_proj, &expert.up_proj, &expert.down_proj}) Fill(0, w->value.mutable_view());
  }
  return g;
}

double At(const Tensor& t, int64_t i) { return t.data<float>()[i]; }

// y [T,D] for this choice and these kept slots. The whole of x and of the router's weight are variables.
template <class T>
std::vector<T> MoeRef(const MoeParams& p, const Moe::Saved& choice, const std::vector<T>& gate, const std::vector<T>& x) {
  std::vector<T> y(x.size());
  for (int64_t t = 0; t < kTokens; ++t) {
    const T* in = x.data() + t * kHidden;
    T score[kChosen], sum = 1e-20;
    for (int64_t k = 0; k < kChosen; ++k) {
      T logit = 0;
      for (int64_t d = 0; d < kHidden; ++d)
        logit += gate[static_cast<size_t>(choice.ids[static_cast<size_t>(t * kChosen + k)] * kHidden + d)] * in[d];
      sum += score[k] = 1.0 / (1.0 + std::exp(-logit));
    }
    for (int64_t k = 0; k < kChosen; ++k) {
      const int32_t expert = choice.ids[static_cast<size_t>(t * kChosen + k)];
      const int64_t slots = std::ssize(choice.slot_expert) / kTokens;
      const auto own = choice.slot_expert.subspan(static_cast<size_t>(t * slots), static_cast<size_t>(slots));
      if (std::ranges::find(own, expert) == own.end()) continue;  // dropped
      const MlpParams& m = p.experts[static_cast<size_t>(expert)];
      for (int64_t f = 0; f < kWidth; ++f) {
        T g = 0, u = 0;
        for (int64_t d = 0; d < kHidden; ++d) {
          g += At(m.gate_proj.value, f * kHidden + d) * in[d];
          u += At(m.up_proj.value, f * kHidden + d) * in[d];
        }
        const T h = g / (1.0 + std::exp(-g)) * u * score[k] / sum * 2.5;
        for (int64_t d = 0; d < kHidden; ++d) y[static_cast<size_t>(t * kHidden + d)] += At(m.down_proj.value, d * kWidth + f) * h;
      }
    }
  }
  return y;
}

class MoeTest : public testing::TestWithParam<ExpertRun> {
 protected:
  MoeTest()
      : moe_(TinyConfig(), {.experts = GetParam()}),
        p_(RandomParams()),
        x_(RandomTensor({kTokens, kHidden}, 3)),
        c_(RandomTensor({kTokens, kHidden}, 4)) {}

  using Complex = std::complex<double>;
  // d (c . y) / d variables[i], i = 0, stride, 2 stride...
  std::vector<double> Gradient(const Moe::Saved& s, bool of_x, size_t stride) {
    std::vector<Complex> gate(Doubles(p_.gate.value)), x(Doubles(x_));
    std::vector<double> gradient;
    std::vector<Complex>& variable = of_x ? x : gate;
    for (size_t i = 0; i < variable.size(); i += stride) {
      variable[i] += Complex(0, 1e-30);
      const std::vector<Complex> y = MoeRef(p_, s, gate, x);
      variable[i] = variable[i].real();
      double sum = 0;
      for (size_t j = 0; j < y.size(); ++j) sum += y[j].imag() * At(c_, static_cast<int64_t>(j));
      gradient.push_back(sum / 1e-30);
    }
    return gradient;
  }
  static std::vector<Complex> Doubles(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.NumElements()}; }
  static std::vector<float> Every(const Tensor& t, int64_t stride) {
    std::vector<float> out;
    for (int64_t i = 0; i < t.NumElements(); i += stride) out.push_back(t.data<float>()[i]);
    return out;
  }

  Moe moe_;
  MoeParams p_;
  Tensor x_, c_;
  Arena saved_{1 << 22}, scratch_{1 << 26};
};

TEST_P(MoeTest, ForwardAndBackwardEqualReference) {
  Ctx ctx{saved_, scratch_, DType::kF32};
  Moe::Saved s = moe_.Allocate(saved_, DType::kF32, kTokens);
  Tensor y(DType::kF32, x_.shape()), dx(DType::kF32, x_.shape());
  Fill(0, y.mutable_view());
  Fill(0, dx.mutable_view());
  moe_.Forward(ctx, p_, kSequence, x_, y.mutable_view(), s);
  std::vector<double> want;
  for (const Complex& v : MoeRef(p_, s, Doubles(p_.gate.value), Doubles(x_))) want.push_back(v.real());
  EXPECT_TRUE(Close(Every(y, 1), want, 1e-5, 1e-5));
  MoeParams grad = ZeroGradients();
  moe_.Backward(ctx, p_, s, x_, {c_, {}}, dx.mutable_view(), grad);
  EXPECT_TRUE(Close(Every(dx, 3), Gradient(s, true, 3), 1e-4, 1e-4));
  EXPECT_TRUE(Close(Every(grad.gate.value, 1), Gradient(s, false, 1), 1e-4, 1e-4));
}

TEST_P(MoeTest, DropsOnlyBeyondTheCapacityOfASequence) {
  Ctx ctx{saved_, scratch_, DType::kF32};
  Moe::Saved s = moe_.Allocate(saved_, DType::kF32, kTokens);
  Tensor y(DType::kF32, x_.shape());
  Fill(0, y.mutable_view());
  moe_.Forward(ctx, p_, kSequence, x_, y.mutable_view(), s);
  if (GetParam().kind != ExpertRun::kCapacity) {
    EXPECT_EQ(s.begin.back(), kTokens * moe_.slots());
    return;
  }
  const int64_t capacity = ExpertCapacity(kSequence, kChosen, kExperts, GetParam().capacity_factor);
  EXPECT_LT(s.begin.back(), kTokens * kChosen) << "this choice overflows somewhere";
  for (int64_t first = 0; first < kTokens; first += kSequence) {
    const auto slots = s.slot_expert.subspan(static_cast<size_t>(first * kChosen), static_cast<size_t>(kSequence * kChosen));
    for (int32_t e = 0; e < kExperts; ++e) EXPECT_LE(std::ranges::count(slots, e), capacity);
  }
}

INSTANTIATE_TEST_SUITE_P(Runs, MoeTest,
                         testing::Values(ExpertRun{ExpertRun::kSorted, 1}, ExpertRun{ExpertRun::kDense, 1},
                                         ExpertRun{ExpertRun::kCapacity, 1}, ExpertRun{ExpertRun::kCapacity, 1.25}));

}  // namespace
}  // namespace fathom

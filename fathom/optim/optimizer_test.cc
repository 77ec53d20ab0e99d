#include "fathom/optim/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/testing/close.h"

namespace fathom {
namespace {

// Parameters with values and gradients of their own.
class Model {
 public:
  void Add(const std::string& name, int64_t n, uint64_t seed) {
    values_.push_back(ToFloats(RandomVector(n, seed)));
    grads_.push_back(ToFloats(RandomVector(n, seed + 1000, 0.5)));
    names_.push_back(name);
  }
  std::vector<OptimizerParam> Params() {
    std::vector<OptimizerParam> params;
    for (size_t i = 0; i < names_.size(); ++i) {
      const auto n = static_cast<int64_t>(values_[i].size());
      params.push_back({names_[i], ViewOf(values_[i].data(), {n}), ViewOf(grads_[i].data(), {n}), View()});
    }
    return params;
  }
  std::vector<float>& value(size_t i) { return values_[i]; }
  std::vector<float>& grad(size_t i) { return grads_[i]; }

 private:
  std::vector<std::vector<float>> values_, grads_;
  std::vector<std::string> names_;
};

double Norm(std::initializer_list<const std::vector<float>*> arrays) {
  double sum = 0;
  for (const auto* a : arrays) {
    for (const float x : *a) sum += static_cast<double>(x) * x;
  }
  return std::sqrt(sum);
}

// Optax's AdamW in double, written out.
struct Reference {
  std::vector<double> w, m, v;
  explicit Reference(const std::vector<float>& value) : w(value.begin(), value.end()), m(value.size()), v(value.size()) {}
  void Step(const OptimizerConfig& c, const std::vector<float>& g, int64_t t, double lr, double scale, double decay) {
    for (size_t i = 0; i < w.size(); ++i) {
      const double gi = g[i] * scale;
      m[i] = c.b1 * m[i] + (1 - c.b1) * gi;
      v[i] = c.b2 * v[i] + (1 - c.b2) * gi * gi;
      const double m_hat = m[i] / (1 - std::pow(c.b1, t)), v_hat = v[i] / (1 - std::pow(c.b2, t));
      w[i] -= lr * (m_hat / (std::sqrt(v_hat + c.eps_root) + c.eps) + decay * w[i]);
    }
  }
};

TEST(Optimizer, AdamWWithClippingDecayMaskAndWhatStays) {
  Model model;
  model.Add("model.layers.0.mlp.up_proj.weight", 70001, 1);  // more than one part
  model.Add("model.norm.weight", 33, 2);
  model.Add("model.embed_tokens.weight", 100, 4);
  auto params = model.Params();
  ApplyDecayMask({"norm"}, params);
  EXPECT_TRUE(params[0].decayed && params[2].decayed);
  EXPECT_FALSE(params[1].decayed);
  params[2].value = View();  // its gradient counts, nothing moves it

  const OptimizerConfig config;
  const auto frozen = model.value(2);
  Optimizer optimizer(config, params);
  Reference up(model.value(0)), norm(model.value(1));
  for (int64_t t = 1; t <= 3; ++t) {
    const double raw = Norm({&model.grad(0), &model.grad(1), &model.grad(2)});
    const double lr = 0.01 * static_cast<double>(t);
    const OptimizerReport report = optimizer.Step(lr);
    EXPECT_TRUE(report.applied);
    EXPECT_NEAR(report.raw_grad_norm, raw, 1e-6 * raw);
    EXPECT_NEAR(report.grad_norm, 1, 1e-9);
    up.Step(config, model.grad(0), t, lr, 1 / raw, config.weight_decay);
    norm.Step(config, model.grad(1), t, lr, 1 / raw, 0);
    const double after = Norm({&model.value(0), &model.value(1)});
    EXPECT_NEAR(report.param_norm, after, 1e-6 * after);
  }
  EXPECT_TRUE(Close(model.value(0), up.w, 1e-6, 1e-6));
  EXPECT_TRUE(Close(model.value(1), norm.w, 1e-6, 1e-6));
  EXPECT_TRUE(SameBits(model.value(2), frozen));
  EXPECT_EQ(optimizer.moments().size(), 2u);
  EXPECT_EQ(optimizer.step_count(), 3);
}

TEST(Optimizer, BelowTheThresholdNothingIsClipped) {
  Model model;
  model.Add("a", 50, 1);
  for (const double threshold : {0.0, 1e9}) {
    OptimizerConfig config;
    config.gradient_clipping_threshold = threshold;
    Optimizer optimizer(config, model.Params());
    const OptimizerReport report = optimizer.Step(0);
    EXPECT_EQ(report.grad_norm, report.raw_grad_norm);
  }
}

TEST(Optimizer, SgdIsPlain) {
  Model model;
  model.Add("a", 50, 1);
  std::vector<double> want(50);
  for (size_t i = 0; i < want.size(); ++i) want[i] = model.value(0)[i] - 0.5 * model.grad(0)[i];
  OptimizerConfig config;
  config.type = OptimizerType::kSgd;
  config.gradient_clipping_threshold = 0;
  Optimizer optimizer(config, model.Params());
  EXPECT_TRUE(optimizer.moments().empty());
  optimizer.Step(0.5);
  EXPECT_TRUE(Close(model.value(0), want, 1e-6, 0));
}

TEST(Optimizer, ANonFiniteGradientChangesNothing) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    Model model;
    model.Add("a", 40000, 1);
    model.grad(0)[39999] = bad;
    const auto before = model.value(0);
    Optimizer optimizer({}, model.Params());
    const OptimizerReport report = optimizer.Step(0.1);
    EXPECT_FALSE(report.applied);
    EXPECT_FALSE(std::isfinite(report.raw_grad_norm));
    EXPECT_NEAR(report.param_norm, Norm({&before}), 1e-4);
    EXPECT_TRUE(SameBits(model.value(0), before));
    EXPECT_EQ(optimizer.step_count(), 0);
  }
}

// Three steps equal one step, state copied into a new optimizer, two steps: what a resume does.
TEST(Optimizer, StateMovesToAnotherOptimizer) {
  Model one, two;
  for (Model* m : {&one, &two}) {
    m->Add("a", 1000, 1);
    m->Add("b", 77, 2);
  }
  Optimizer whole({}, one.Params()), first({}, two.Params());
  for (int i = 0; i < 3; ++i) whole.Step(0.01);
  first.Step(0.01);
  Optimizer second({}, two.Params());
  second.set_step_count(first.step_count());
  for (size_t i = 0; i < first.moments().size(); ++i) {
    EXPECT_EQ(first.moments()[i].name, second.moments()[i].name);
    for (const auto& [from, to] :
         {std::pair(first.moments()[i].m, second.moments()[i].m), std::pair(first.moments()[i].v, second.moments()[i].v)}) {
      std::copy_n(from.raw(), from.NumBytes(), to.raw());
    }
  }
  second.Step(0.01);
  second.Step(0.01);
  EXPECT_TRUE(SameBits(one.value(0), two.value(0)));
  EXPECT_TRUE(SameBits(one.value(1), two.value(1)));
}

TEST(Optimizer, SameBitsForAnyNumberOfThreads) {
  std::vector<std::vector<float>> values;
  std::vector<double> norms;
  const int all = NumThreads();
  for (const int threads : {1, 2, 3}) {
    SetThreads(threads);
    Model model;
    model.Add("a", 200001, 1);
    model.Add("b", 77, 2);
    Optimizer optimizer({}, model.Params());
    optimizer.Step(0.01);
    const OptimizerReport report = optimizer.Step(0.01);
    values.push_back(model.value(0));
    norms.push_back(report.raw_grad_norm + report.param_norm);
  }
  SetThreads(all);
  EXPECT_TRUE(SameBits(values[0], values[1]));
  EXPECT_TRUE(SameBits(values[0], values[2]));
  EXPECT_EQ(norms[0], norms[1]);
  EXPECT_EQ(norms[0], norms[2]);
}

int64_t MomentBytes(const OptimizerConfig& config, const std::vector<OptimizerParam>& params) {
  const Optimizer optimizer(config, params);
  int64_t bytes = 0;
  for (const auto& moments : optimizer.moments()) bytes += moments.m.NumBytes() + moments.v.NumBytes();
  return bytes;
}

TEST(Optimizer, BF16CopyAndStateBytes) {
  Model model;
  model.Add("a", 100, 1);
  std::vector<BF16> copy(100);
  auto params = model.Params();
  params[0].bf16_copy = ViewOf(copy.data(), {100});
  OptimizerConfig config;
  EXPECT_EQ(MomentBytes(config, params), 800);
  config.mu_dtype = DType::kBF16;
  EXPECT_EQ(MomentBytes(config, params), 600);
  config.nu_dtype = DType::kBF16;
  EXPECT_EQ(MomentBytes(config, params), 400);
  Optimizer optimizer(config, params);
  optimizer.Step(0.01);
  for (size_t i = 0; i < copy.size(); ++i) EXPECT_EQ(copy[i], ToBF16(model.value(0)[i]));
}

// A weight in BF16 whose steps are a hundredth of its spacing: to the nearest it stands still, by chance it goes where F32 goes.
TEST(Optimizer, SmallStepsAddUpByChance) {
  constexpr int64_t kCount = 40000, kSteps = 20;
  const auto mean_after = [](OptimizerType type, bool by_chance, uint64_t seed, std::vector<BF16>* values = nullptr) {
    std::vector<BF16> w(kCount, ToBF16(1));
    std::vector<float> g(kCount, 1);
    OptimizerConfig config{.type = type, .weight_decay = 0, .gradient_clipping_threshold = 0};
    config.stochastic_rounding = by_chance;
    config.seed = seed;
    Optimizer optimizer(config, {{.name = "w", .value = ViewOf(w.data(), {kCount}), .grad = ViewOf(g.data(), {kCount})}});
    for (int64_t i = 0; i < kSteps; ++i) optimizer.Step(1e-4);
    double sum = 0;
    for (const BF16 x : w) sum += ToFloat(x);
    if (values != nullptr) *values = w;
    return sum / kCount;
  };
  for (const OptimizerType type : {OptimizerType::kAdamW, OptimizerType::kSgd}) {
    EXPECT_EQ(mean_after(type, false, 0), 1);
    EXPECT_NEAR(mean_after(type, true, 0), 1 - kSteps * 1e-4, 1e-4);
  }
  std::vector<BF16> one, many, other;
  SetThreads(1);
  mean_after(OptimizerType::kAdamW, true, 3, &one);
  SetThreads(3);
  mean_after(OptimizerType::kAdamW, true, 3, &many);
  mean_after(OptimizerType::kAdamW, true, 4, &other);
  SetThreads(0);
  const auto moved = std::ranges::count_if(one, [](BF16 x) { return ToFloat(x) != 1; });
  EXPECT_NEAR(static_cast<double>(moved) / kCount, 1 - std::pow(1 - 1e-4 / 0x1p-8, kSteps), 0.01);  // each step draws anew
  EXPECT_TRUE(one == many);
  EXPECT_FALSE(one == other);
}

// Muon moves the matrices that ask for it, by themselves; AdamW the rest. (Their numbers: muon_test, and MaxText's.)
TEST(Optimizer, MuonHasOneMomentPerMatrix) {
  Model model;
  model.Add("matrix", 12, 1);
  model.Add("vector", 5, 2);
  auto params = model.Params();
  params[0].value = params[0].value.Reshape({3, 4});
  params[0].grad = params[0].grad.Reshape({3, 4});
  params[0].orthogonal = true;
  OptimizerConfig config;
  config.type = OptimizerType::kMuon;
  Optimizer optimizer(config, params);
  EXPECT_TRUE(optimizer.moments()[0].v.empty());
  EXPECT_FALSE(optimizer.moments()[1].v.empty());
  EXPECT_GT(optimizer.scratch_bytes(), 0);
  const auto before = model.value(0);
  const OptimizerReport report = optimizer.Step(0.1);
  EXPECT_NEAR(report.param_norm, Norm({&model.value(0), &model.value(1)}), 1e-6);
  double moved = 0;
  for (size_t i = 0; i < before.size(); ++i) moved += std::pow((before[i] - model.value(0)[i]) / 0.1, 2);
  EXPECT_NEAR(moved, 3, 1.2);  // three singular values near 1
}

TEST(Optimizer, ASpikeChangesNothing) {
  Model model;
  model.Add("a", 50, 1);
  OptimizerConfig config;
  config.spikes = SpikeRule{8, 6};
  Optimizer optimizer(config, model.Params());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(optimizer.Step(0.1, 1 + 0.1 * i).applied);
  const auto before = model.value(0);
  const OptimizerReport report = optimizer.Step(0.1, 100);
  EXPECT_TRUE(report.spike && !report.applied);
  EXPECT_NEAR(report.param_norm, Norm({&before}), 1e-4);
  EXPECT_TRUE(SameBits(model.value(0), before));
  EXPECT_EQ(optimizer.step_count(), 3);
}

TEST(OptimizerType, OnlyWhatExists) {
  EXPECT_EQ(ParseOptimizerType("adam_pax"), OptimizerType::kAdamPax);
  EXPECT_THROW(ParseOptimizerType("adagrad"), Error);
}

}  // namespace
}  // namespace fathom

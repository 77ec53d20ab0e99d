// Multi-token prediction: rolled tokens, what must be equal however the work is cut up, and gradients of a chain of two modules by finite
// differences. Agreement with the truth is eval/golden_test's.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "fathom/model/decoder.h"
#include "fathom/model/load.h"
#include "fathom/model/tiny_config.h"
#include "fathom/testing/close.h"

namespace fathom {
namespace {

ModelConfig TwoModules(bool sparse) {
  ModelConfig c = TinyConfig(sparse ? ModelFamily::kV32 : ModelFamily::kV3, 41);
  c.num_nextn_predict_layers = 2;
  return c;
}

// Documents of these lengths on one token axis, with random tokens; then padding.
struct Documents {
  std::vector<int32_t> ids, targets, positions;
  std::vector<float> weights;
  std::vector<Segment> segments;

  Documents(std::initializer_list<int64_t> lengths, int64_t padding, uint64_t seed) {
    const CounterRng rng(seed, HashName("ids"));
    uint64_t drawn = 0;
    for (const int64_t n : lengths) {
      const auto begin = std::ssize(ids);
      for (int64_t i = 0; i < n; ++i) {
        ids.push_back(i == 0 ? static_cast<int32_t>(rng.Below(drawn++, 41)) : targets.back());
        targets.push_back(static_cast<int32_t>(rng.Below(drawn++, 41)));
        positions.push_back(static_cast<int32_t>(i));
        weights.push_back(1);
      }
      segments.push_back({begin, begin + n, begin, begin + n});
    }
    const size_t total = ids.size() + static_cast<size_t>(padding);
    for (auto* v : {&ids, &targets, &positions}) v->resize(total, 0);
    weights.resize(total, 0);
  }
  TokenBatch batch() const { return {ids, targets, weights, {positions, segments}}; }
};

TEST(RollWithinSegments, StopsAtTheEndsOfDocumentsAndInPadding) {
  const std::vector<int32_t> ids{1, 2, 3, 4, 5, 0, 6, 7}, targets{2, 3, 9, 5, 8, 0, 7, 9}, positions(8, 0);
  const std::vector<float> weights{0, 1, 1, 1, 1, 0, 1, 1};
  const std::vector<Segment> segments{{0, 3, 0, 3}, {3, 5, 3, 5}, {6, 8, 6, 8}};
  const TokenBatch batch{ids, targets, weights, {positions, segments}};
  std::vector<int32_t> rolled_ids(8), rolled_targets(8);
  std::vector<float> rolled_weights(8);
  RollWithinSegments(batch, rolled_ids, rolled_targets, rolled_weights);
  EXPECT_EQ(rolled_ids, (std::vector<int32_t>{2, 3, 0, 5, 0, 0, 7, 0}));
  EXPECT_EQ(rolled_targets, (std::vector<int32_t>{3, 9, 0, 8, 0, 0, 9, 0}));
  EXPECT_EQ(rolled_weights, (std::vector<float>{1, 1, 0, 1, 0, 0, 1, 0}));
  EXPECT_EQ(MtpWeight(batch, 1), 4);
  EXPECT_EQ(MtpWeight(batch, 2), 5);  // a second module has a target only in the document of three tokens
  RollWithinSegments({rolled_ids, rolled_targets, rolled_weights, batch.layout}, rolled_ids, rolled_targets, rolled_weights);
  EXPECT_EQ(rolled_targets, (std::vector<int32_t>{9, 0, 0, 0, 0, 0, 0, 0}));
}

struct Variant {
  MtpInput input;
  bool sparse;  // a V3.2 model
};

class MtpTest : public testing::TestWithParam<Variant> {
 protected:
  MtpTest()
      : config_(TwoModules(GetParam().sparse)),
        params_(InitParams(config_, 7, DType::kF32, false)),
        decoder_(config_),
        saved_(1 << 26),
        scratch_(1 << 28) {
    decoder_.EnsurePositions(512);
  }
  LossOptions Options(int64_t modules) const { return {.mtp = {.modules = modules, .input = GetParam().input, .scale = 0.5f}}; }

  LossSums Run(const Documents& d, Remat remat, DType compute, DecoderParams& grads, int64_t modules = 2) {
    grads =
        MakeGradients(params_, [](const ParamSpec& p) { return !LearnsByCounting(p.role) && p.role != ParamRole::kIndexerKeyNormBias; });
    Ctx ctx{saved_, scratch_, compute};
    return decoder_.ForwardBackward(ctx, params_, d.batch(), Options(modules), remat, grads);
  }
  std::vector<float> Gradients(const Documents& d, Remat remat, DType compute) {
    DecoderParams grads;
    Run(d, remat, compute, grads);
    std::vector<float> all;
    for (const NamedWeight& w : ListParams(grads))
      all.insert(all.end(), w.weight->value.data<float>(), w.weight->value.data<float>() + w.weight->value.NumElements());
    return all;
  }
  double Loss(const Documents& d) {
    DecoderParams grads;
    const LossSums sums = Run(d, Remat::kNone, DType::kF32, grads);
    return sums.main.loss + 0.5 * sums.mtp.loss;
  }
  // Moves every parameter by `step` times its gradient, each memory once.
  void Move(DecoderParams& grads, double step) {
    std::set<const std::byte*> moved;
    const auto weights = ListParams(params_);
    std::map<std::string, Weight*> by_name;
    for (const NamedWeight& w : weights) by_name[w.spec->name] = w.weight;
    for (const NamedWeight& g : ListParams(grads)) {
      if (moved.insert(g.weight->value.view().raw()).second)
        AddScaled(static_cast<float>(step), g.weight->value.view(), by_name[g.spec->name]->value.mutable_view());
    }
  }
  void CheckDirectionalDerivative() {
    const Documents d({23, 9, 1, 2}, 2, 5);
    DecoderParams grads;
    Run(d, Remat::kMinimal, DType::kF32, grads);
    double norm2 = 0;
    std::set<const std::byte*> seen;
    for (const NamedWeight& g : ListParams(grads)) {
      if (seen.insert(g.weight->value.view().raw()).second) norm2 += SumSquares(g.weight->value.view());
    }
    const double step = 2e-3 / std::sqrt(norm2);
    Move(grads, step);
    const double up = Loss(d);
    Move(grads, -2 * step);
    const double down = Loss(d);
    EXPECT_NEAR((up - down) / (2 * step), norm2, 2e-3 * norm2);
  }

  ModelConfig config_;
  DecoderParams params_;
  Decoder decoder_;
  Arena saved_, scratch_;
};

// Finite differences are for smooth functions: in V3.2 a step this long changes which keys are chosen. The goldens have its gradients.
class DenseMtpTest : public MtpTest {};

TEST_P(DenseMtpTest, GradientsFollowTheLossWithOwnHeads) { CheckDirectionalDerivative(); }

TEST_P(DenseMtpTest, GradientsFollowTheLossWithSharedHeads) {
  ShareEmbeddingAndHead(params_);
  CheckDirectionalDerivative();
}

TEST_P(MtpTest, SharedGradientsAreTheSumOfTheTwo) {
  const Documents d({23, 9}, 2, 5);
  const auto copy = [](const Weight& from, Weight& to) {
    to.value = Tensor(DType::kF32, from.value.shape());
    Cast(from.value.view(), to.value.mutable_view());
  };
  for (MtpParams& m : params_.mtp) {
    copy(params_.embed_tokens, m.embed_tokens);
    copy(params_.lm_head, m.shared_head_head);
  }
  DecoderParams own, shared;
  const LossSums a = Run(d, Remat::kNone, DType::kF32, own);
  ShareEmbeddingAndHead(params_);
  const LossSums b = Run(d, Remat::kNone, DType::kF32, shared);
  EXPECT_EQ(a.mtp.loss, b.mtp.loss);
  const View sum = own.lm_head.value.mutable_view(), embedding = own.embed_tokens.value.mutable_view();
  for (const MtpParams& m : own.mtp) {
    AddScaled(1, m.shared_head_head.value.view(), sum);
    AddScaled(1, m.embed_tokens.value.view(), embedding);
  }
  const auto floats = [](const Tensor& t) { return std::span<const float>(t.data<float>(), static_cast<size_t>(t.NumElements())); };
  EXPECT_TRUE(RelativeL2(floats(shared.lm_head.value), ToDoubles(floats(own.lm_head.value)), 1e-6));
  EXPECT_TRUE(RelativeL2(floats(shared.embed_tokens.value), ToDoubles(floats(own.embed_tokens.value)), 1e-6));
}

TEST_P(MtpTest, PackedDocumentsGiveTheLossOfSeparateOnes) {
  const Documents a({17}, 0, 1), b({6}, 3, 2);
  Documents both({17, 6}, 4, 1);
  std::copy(b.ids.begin(), b.ids.begin() + 6, both.ids.begin() + 17);
  std::copy(b.targets.begin(), b.targets.begin() + 6, both.targets.begin() + 17);
  DecoderParams grads;
  const LossSums x = Run(a, Remat::kNone, DType::kF32, grads), y = Run(b, Remat::kNone, DType::kF32, grads),
                 z = Run(both, Remat::kNone, DType::kF32, grads);
  EXPECT_NEAR(z.mtp.loss, x.mtp.loss + y.mtp.loss, 1e-5 * z.mtp.loss);
  EXPECT_EQ(z.mtp.weight, 16 + 15 + 5 + 4);
  EXPECT_EQ(z.mtp.weight, MtpWeight(both.batch(), 2));
}

// As fine-tuning weighs them: a module at position t is counted where the token that it predicts is.
TEST_P(MtpTest, CountsTheTargetsThatAreLearnt) {
  Documents d({9, 5}, 0, 5);
  for (size_t t = 0; t < d.weights.size(); ++t) d.weights[t] = t % 3 == 0 ? 1 : 0;
  DecoderParams grads;
  const LossSums sums = Run(d, Remat::kNone, DType::kF32, grads);
  double loss = 0, weight = 0;
  for (int64_t module = 1; module <= 2; ++module) {
    Tensor logits(DType::kF32, {std::ssize(d.ids), config_.vocab_size});
    Ctx ctx{saved_, scratch_, DType::kF32};
    decoder_.MtpLogits(ctx, params_, d.batch(), GetParam().input, module, logits.mutable_view());
    for (const Segment& s : d.segments) {
      for (int64_t t = s.q_begin; t + module < s.q_end; ++t) {
        const auto predicted = static_cast<size_t>(t + module);
        if (d.weights[predicted] == 0) continue;
        const float* row = logits.view().row<float>(t);
        double sum = 0;
        for (int64_t v = 0; v < config_.vocab_size; ++v) sum += std::exp(static_cast<double>(row[v]));
        loss += std::log(sum) - static_cast<double>(row[d.targets[predicted]]);
        weight += 1;
      }
    }
  }
  EXPECT_EQ(sums.mtp.weight, weight);
  EXPECT_NEAR(sums.mtp.loss, loss, 1e-5 * loss);
}

TEST_P(MtpTest, RematChangesMemoryNotGradients) {
  const Documents d({31, 8}, 3, 3);
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    const auto none = Gradients(d, Remat::kNone, compute);
    EXPECT_TRUE(SameBits(none, Gradients(d, Remat::kMinimal, compute)));
    EXPECT_TRUE(SameBits(none, Gradients(d, Remat::kFull, compute)));
  }
}

TEST_P(MtpTest, ModulesThatTakeNoPartChangeNothing) {
  const Documents d({20}, 0, 6);
  DecoderParams grads;
  const LossSums none = Run(d, Remat::kNone, DType::kF32, grads, 0);
  EXPECT_EQ(none.mtp.weight, 0);
  for (const MtpParams& m : grads.mtp) EXPECT_EQ(SumSquares(m.eh_proj.value.view()), 0);
  const LossSums one = Run(d, Remat::kNone, DType::kF32, grads, 1);
  EXPECT_EQ(one.main.loss, none.main.loss);
  EXPECT_GT(SumSquares(grads.mtp[0].eh_proj.value.view()), 0);
  EXPECT_EQ(SumSquares(grads.mtp[1].eh_proj.value.view()), 0);
}

// With index_topk beyond the documents attention sees every key and the loss is smooth.
class IndexerOfAModule : public testing::TestWithParam<bool> {};

TEST_P(IndexerOfAModule, FollowsItsLoss) {
  ModelConfig config = TwoModules(true);
  config.index_topk = 64;
  const bool warm_up = GetParam();
  DecoderParams params = InitParams(config, 7, DType::kF32, false);
  Decoder decoder(config);
  decoder.EnsurePositions(64);
  Arena saved(1 << 26), scratch(1 << 28);
  const Documents d({23, 9}, 2, 5);
  const auto is_learned = [](const ParamSpec& p) { return p.is_mtp() && p.is_indexer(); };
  DecoderParams grads;
  const auto loss = [&](Remat remat) {
    std::vector<double> kl(4, 0.0);
    grads = MakeGradients(params, is_learned);
    const LossOptions options{
        .lm_loss = !warm_up, .indexer = {.factor = 1, .sparse = !warm_up}, .mtp = {.modules = 2}, .totals = {.indexer_kl = kl}};
    Ctx ctx{saved, scratch, DType::kF32};
    decoder.ForwardBackward(ctx, params, d.batch(), options, remat, grads);
    return kl[2] + kl[3];
  };
  loss(Remat::kMinimal);
  DecoderParams first = std::move(grads);
  std::map<std::string, Weight*> by_name;
  for (const NamedWeight& w : ListParams(params)) by_name[w.spec->name] = w.weight;
  double norm2 = 0;
  for (const NamedWeight& g : ListParams(first)) norm2 += SumSquares(g.weight->value.view());
  ASSERT_GT(norm2, 0);
  const double step = 1e-2 / std::sqrt(norm2);
  const auto moved = [&](double by) {
    for (const NamedWeight& g : ListParams(first)) {
      if (!g.weight->value.empty()) AddScaled(static_cast<float>(by), g.weight->value.view(), by_name[g.spec->name]->value.mutable_view());
    }
    return loss(Remat::kFull);
  };
  const double up = moved(step), down = moved(-2 * step);
  EXPECT_NEAR((up - down) / (2 * step), norm2, 5e-3 * norm2);
}

INSTANTIATE_TEST_SUITE_P(Stages, IndexerOfAModule, testing::Bool(),
                         [](const auto& test) { return std::string(test.param ? "WarmUp" : "SparseTraining"); });

TEST_P(MtpTest, DraftsFromTheCacheAreTheTrainingForwards) {
  const Documents d({30}, 0, 8);
  Ctx ctx{saved_, scratch_, DType::kF32};
  Tensor whole(DType::kF32, {30, 41});
  decoder_.MtpLogits(ctx, params_, d.batch(), GetParam().input, 1, whole.mutable_view());
  CachePool pool(config_, config_.num_hidden_layers + 1, 1, DType::kF32);
  CachedSequence sequence(pool);
  sequence.Own(0, 30);
  Tensor hidden(DType::kF32, {30, 24}), states(DType::kF32, {30, 24}), next(DType::kF32, {1, 24}), logits(DType::kF32, {1, 41});
  const CachedSegment all{0, 30, 0, sequence.blocks()};
  decoder_.Decode(ctx, params_, d.ids, {&all, 1}, pool, hidden.mutable_view());
  decoder_.DraftState(ctx, params_, GetParam().input, hidden, states.mutable_view());
  const auto draft = [&](int64_t begin, int64_t end) {
    const CachedSegment rows{0, end - begin, begin, sequence.blocks()};
    Tensor h(DType::kF32, {end - begin, 24});
    decoder_.Draft(ctx, params_, std::span(d.ids).subspan(static_cast<size_t>(begin + 1), static_cast<size_t>(end - begin)),
                   states.view().Rows(begin, end), {&rows, 1}, pool, h.mutable_view());
    decoder_.DraftLogits(ctx, params_, GetParam().input, h.view().Rows(end - begin - 1, end - begin), logits.mutable_view(),
                         next.mutable_view());
    const std::span<const float> got{logits.data<float>(), 41}, want{whole.view().row<float>(end - 1), 41};
    EXPECT_TRUE(Close(got, ToDoubles(want), 1e-4, 0)) << begin << ".." << end;
  };
  draft(0, 20);
  draft(20, 21);
  draft(21, 26);
  draft(23, 29);  // rolled back
}

constexpr Variant kAfter{MtpInput::kAfterNorm, false}, kBefore{MtpInput::kBeforeNorm, false}, kSparse{MtpInput::kAfterNorm, true};

std::string NameOf(const testing::TestParamInfo<Variant>& test) {
  return std::string(test.param.sparse ? "V32" : "V3") + (test.param.input == MtpInput::kAfterNorm ? "After" : "Before");
}

INSTANTIATE_TEST_SUITE_P(Inputs, MtpTest, testing::Values(kAfter, kBefore, kSparse), NameOf);
INSTANTIATE_TEST_SUITE_P(Inputs, DenseMtpTest, testing::Values(kAfter, kBefore), NameOf);

}  // namespace
}  // namespace fathom

// Speculation must not change what comes out: the rule on distributions, the engine's roll back, whole answers.
#include "fathom/infer/speculate.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/infer/generate.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/model/load.h"
#include "fathom/model/tiny_config.h"
#include "fathom/testing/close.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

constexpr int64_t kVocab = 7;

ModelConfig OneModule(ModelFamily family) {
  ModelConfig c = TinyConfig(family, kVocab);
  c.num_nextn_predict_layers = 1;
  return c;
}

// Random weights whose MTP module often agrees with the main model: eh_proj passes the embedding on, and the layers add little to it.
void SaveTinyModel(const std::filesystem::path& dir, ModelFamily family) {
  const ModelConfig config = OneModule(family);
  DecoderParams params = InitParams(config, 3, DType::kF32, false);
  for (const NamedWeight& w : ListParams(params)) {
    const bool out = w.spec->name.ends_with("o_proj.weight") || w.spec->name.ends_with("down_proj.weight");
    if (out || w.spec->name.ends_with("eh_proj.weight")) Scale(out ? 0.7f : 0.1f, w.weight->value.mutable_view());
  }
  float* projection = params.mtp[0].eh_proj.value.mutable_data<float>();
  for (int64_t i = 0; i < config.hidden_size; ++i) projection[i * 2 * config.hidden_size + i] = 1;
  ShareEmbeddingAndHead(params);
  std::vector<NamedTensor> tensors;
  for (const NamedWeight& w : ListParams(params)) tensors.push_back({w.spec->name, w.weight->value.view()});
  std::filesystem::create_directories(dir);
  WriteModelFiles(dir, ModelConfigToJson(config), tensors, SaveOptions().max_shard_size);
}

// sum (seen - expected)^2 / expected over outcomes that can come; infinite if one comes that can't.
double ChiSquare(const std::vector<int64_t>& seen, const std::vector<double>& probability) {
  const auto n = static_cast<double>(std::accumulate(seen.begin(), seen.end(), int64_t{0}));
  double sum = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    const double expected = n * probability[i], d = static_cast<double>(seen[i]) - expected;
    if (expected > 0) sum += d * d / expected;
    if (expected == 0 && seen[i] > 0) return 1e9;
  }
  return sum;
}

TEST(JudgeDraft, GivesTheTargetsDistribution) {
  const CounterRng draw(1, HashName("draw")), accept(2, HashName("accept")), redraw(3, HashName("redraw"));
  const std::vector<std::pair<std::vector<float>, std::vector<float>>> cases{
      {{0.5f, 0.2f, 0.2f, 0.1f, 0}, {0.1f, 0.6f, 0, 0.1f, 0.2f}},
      {{0.25f, 0.25f, 0.25f, 0.25f, 0}, {0.25f, 0.25f, 0.25f, 0.25f, 0}},
      {{1, 0, 0, 0, 0}, {0.5f, 0.5f, 0, 0, 0}},
      {{0.3f, 0.3f, 0.4f, 0, 0}, {0, 0, 0, 0, 1}}};
  for (const auto& [target, draft] : cases) {
    std::vector<int64_t> seen(target.size());
    int64_t accepted = 0;
    constexpr uint64_t kDraws = 100000;
    for (uint64_t i = 0; i < kDraws; ++i) {
      const double uniforms[2] = {accept.Uniform(i), redraw.Uniform(i)};
      const Verdict v = JudgeDraft(target, draft, DrawIndex(draft, draw.Uniform(i)), uniforms);
      ++seen[static_cast<size_t>(v.id)];
      accepted += v.accepted ? 1 : 0;
    }
    EXPECT_LT(ChiSquare(seen, {target.begin(), target.end()}), 18.5);  // 4 degrees of freedom: one in a thousand
    double overlap = 0;
    for (size_t i = 0; i < target.size(); ++i) overlap += static_cast<double>(std::min(target[i], draft[i]));
    EXPECT_NEAR(static_cast<double>(accepted) / kDraws, overlap, 0.01);
  }
}

class SpeculateTest : public testing::TestWithParam<ModelFamily> {
 protected:
  SpeculateTest() {
    SetThreads(1);  // the model is tiny
    SaveTinyModel(model_, GetParam());
    plain_.emplace(model_, DType::kF32, 128);
    drafting_.emplace(model_, DType::kF32, 128, DraftOptions{.enabled = true});
  }
  ~SpeculateTest() override { SetThreads(0); }
  static GenerateOptions Options(int64_t tokens, int64_t draft_tokens) {
    GenerateOptions o;
    o.max_new_tokens = tokens;
    o.ignore_eos = true;
    o.draft_tokens = draft_tokens;
    return o;
  }

  TemporaryFolder folder_;
  const std::filesystem::path model_ = folder_.path() / "model";
  std::optional<Engine> plain_, drafting_;
};

TEST_P(SpeculateTest, WhatIsNotKeptLeavesNoTrace) {
  const std::vector<int32_t> prompt{5, 1, 2, 6, 3}, guess{2, 4, 6, 0}, rest{1};
  Engine straight(model_, DType::kF32, 128, {.enabled = true});
  for (Engine* engine : {&*plain_, &straight}) {
    engine->Append(prompt);
    engine->Append(std::span(guess).first(2));
  }
  drafting_->Append(prompt);
  drafting_->FirstDraft(guess[0]);
  drafting_->NextDraft(guess[1]);
  drafting_->NextDraft(guess[2]);
  drafting_->Verify(guess);
  drafting_->Keep(2);
  EXPECT_EQ(drafting_->length(), 7);
  EXPECT_TRUE(Close(drafting_->FirstDraft(rest[0]), ToDoubles(straight.FirstDraft(rest[0])), 1e-5, 0));
  EXPECT_TRUE(Close(drafting_->Append(rest), ToDoubles(plain_->Append(rest)), 1e-5, 0));
}

TEST_P(SpeculateTest, GreedyAnswersAreTheSameTokenByToken) {
  int64_t drafted = 0, accepted = 0;
  for (int32_t first = 0; first < kVocab; ++first) {
    const std::vector<int32_t> prompt{first, 3, 4};
    const auto want = Generate(*plain_, nullptr, prompt, Options(60, 0), {}).ids;
    for (const int64_t drafts : {1, 2, 3, 7}) {
      const GenerateResult r = Generate(*drafting_, nullptr, prompt, Options(60, drafts), {});
      EXPECT_EQ(r.ids, want) << drafts << " drafts, prompt " << first;
      drafted += r.drafted;
      accepted += r.accepted;
    }
  }
  EXPECT_GT(accepted, drafted / 10) << "else nothing was tested";
  EXPECT_LT(accepted, drafted);
}

TEST_P(SpeculateTest, ALongPromptIsDraftedFromAsInPieces) {
  std::vector<int32_t> prompt(1100);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * i * 31 % kVocab);
  Engine at_once(model_, DType::kF32, 1200, {.enabled = true}), in_pieces(model_, DType::kF32, 1200, {.enabled = true});
  at_once.Append(prompt);
  for (size_t i = 0; i < prompt.size(); i += 100) in_pieces.Append(std::span(prompt).subspan(i, 100));
  EXPECT_TRUE(Close(at_once.FirstDraft(2), ToDoubles(in_pieces.FirstDraft(2)), 1e-4, 0));
}

// Probability of each continuation of so_far to `length` tokens, by trying all.
void Enumerate(Engine& engine, Sampler& sampler, std::vector<int32_t>& so_far, size_t length, double p,
               std::map<std::vector<int32_t>, double>& out) {
  if (so_far.size() == length) {
    out[so_far] = p;
    return;
  }
  engine.Reset();
  const auto q = sampler.Distribution(engine.Append(so_far));
  const std::vector<double> probabilities(q.begin(), q.end());
  for (size_t id = 0; id < probabilities.size(); ++id) {
    so_far.push_back(static_cast<int32_t>(id));
    if (probabilities[id] > 0) Enumerate(engine, sampler, so_far, length, p * probabilities[id], out);
    so_far.pop_back();
  }
}

TEST_P(SpeculateTest, SampledAnswersHaveTheModelsDistribution) {
  std::vector<int32_t> prompt{5, 1, 2};
  GenerateOptions options = Options(4, 2);
  options.sampling.rule = {.strategy = SamplingStrategy::kTopK, .temperature = 1.5, .top_k = 3};
  Sampler sampler(options.sampling, kVocab);
  std::map<std::vector<int32_t>, double> exact;
  Enumerate(*plain_, sampler, prompt, prompt.size() + 4, 1, exact);
  ASSERT_EQ(exact.size(), 81u);
  std::map<std::vector<int32_t>, int64_t> seen;
  int64_t drafted = 0, accepted = 0;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    options.sampling.seed = seed;
    const GenerateResult r = Generate(*drafting_, nullptr, prompt, options, {});
    std::vector<int32_t> whole = prompt;
    whole.insert(whole.end(), r.ids.begin(), r.ids.end());
    ++seen[whole];
    drafted += r.drafted;
    accepted += r.accepted;
  }
  EXPECT_GT(accepted, drafted / 4);
  EXPECT_LT(accepted, drafted * 9 / 10);
  std::vector<int64_t> counts;
  std::vector<double> probability;
  for (const auto& [ids, p] : exact) {
    probability.push_back(p);
    counts.push_back(seen[ids]);
  }
  EXPECT_LE(seen.size(), exact.size()) << "an answer came that plain sampling can't give";
  EXPECT_LT(ChiSquare(counts, probability), 124.8);  // 80 degrees of freedom: one in a thousand
}

TEST_P(SpeculateTest, ACheckpointWithoutAModuleIsRefused) {
  EXPECT_THROW(Engine(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v2", DType::kF32, 16, {.enabled = true}), Error);
}

INSTANTIATE_TEST_SUITE_P(Families, SpeculateTest, testing::Values(ModelFamily::kV3, ModelFamily::kV32),
                         [](const auto& test) { return test.param == ModelFamily::kV3 ? "V3" : "V32"; });

// Passes until the ways have been compared once, drafts giving `drafted` tokens per second and plain passes one.
bool DraftsAfterTrial(double drafted) {
  DraftCost cost;
  int passes = 0;
  for (; passes < 34; ++passes) cost.Note(1, cost.UseDrafts() ? 1 / drafted : 1);
  return cost.UseDrafts();
}

TEST(DraftCost, TakesTheFasterWay) {
  EXPECT_TRUE(DraftsAfterTrial(1.3));
  EXPECT_FALSE(DraftsAfterTrial(0.7));
}

TEST(DraftCost, LooksAgain) {
  DraftCost cost;
  for (int i = 0; i < 34; ++i) cost.Note(1, cost.UseDrafts() ? 2 : 1);
  EXPECT_FALSE(cost.UseDrafts());
  for (int i = 0; i < 128 + 17; ++i) cost.Note(1, cost.UseDrafts() ? 0.5 : 1);  // the text has become easy
  EXPECT_TRUE(cost.UseDrafts());
}

}  // namespace
}  // namespace fathom

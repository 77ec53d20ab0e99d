// What an answer depends on: not on drafts, neighbours, places in a batch, or the clock.
#include "fathom/infer/generate.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "fathom/base/rng.h"
#include "fathom/base/threads.h"
#include "fathom/checkpoint/hub/save.h"
#include "fathom/infer/draft_cost.h"
#include "fathom/kernels/elementwise/vector_ops.h"
#include "fathom/model/load.h"
#include "fathom/model/tiny_config.h"
#include "fathom/parallel/test_threads.h"
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

class GenerateTest : public testing::TestWithParam<ModelFamily> {
 protected:
  GenerateTest() {
    SetThreads(1);  // the model is tiny
    SaveTinyModel(dir_, GetParam());
    model_.emplace(Checkpoint::Open(dir_), DType::kF32, 1200);
    drafting_model_.emplace(Checkpoint::Open(dir_), DType::kF32, 1200, DraftOptions{.enabled = true});
    plain_.emplace(*model_, 8);
    drafting_.emplace(*drafting_model_, 8);
  }
  ~GenerateTest() override { SetThreads(0); }
  static GenerateOptions Options(int64_t tokens, int64_t draft_tokens) {
    GenerateOptions o;
    o.max_new_tokens = tokens;
    o.ignore_eos = true;
    o.draft_tokens = draft_tokens;
    return o;
  }
  static GenerateOptions Sampled(int64_t tokens, int64_t draft_tokens) {
    GenerateOptions o = Options(tokens, draft_tokens);
    o.sampling = {{.strategy = SamplingStrategy::kWeighted, .temperature = 1.5}, 11};
    return o;
  }
  static std::vector<float> Values(ConstView logits) { return {logits.data<float>(), logits.data<float>() + logits.NumElements()}; }
  // Logits after tokens that are appended in one pass.
  static std::vector<float> Append(Engine& engine, Sequence& s, std::span<const int32_t> ids, bool prompt = true) {
    const Engine::Part part{&s, ids, 1, prompt};
    return Values(engine.Append({&part, 1}));
  }
  static std::vector<float> FirstDraft(Engine& engine, Sequence& s, int32_t id) {
    const NextToken next{&s, id};
    return Values(engine.FirstDrafts({&next, 1}, 3));
  }

  TemporaryFolder folder_;
  const std::filesystem::path dir_ = folder_.path() / "model";
  std::optional<MappedModel> model_, drafting_model_;
  std::optional<Engine> plain_, drafting_;
};

TEST_P(GenerateTest, WhatIsTakenBackLeavesNoTrace) {
  const std::vector<int32_t> prompt{5, 1, 2, 6, 3}, guess{2, 4, 6, 0}, rest{1};
  Sequence plain(plain_->pool()), straight(drafting_->pool()), rolled(drafting_->pool());
  for (auto [engine, s] : {std::pair{&*plain_, &plain}, {&*drafting_, &straight}}) {
    Append(*engine, *s, prompt);
    Append(*engine, *s, std::span(guess).first(2), false);
  }
  Append(*drafting_, rolled, prompt);
  FirstDraft(*drafting_, rolled, guess[0]);
  for (int i = 1; i < 3; ++i) {
    const NextToken drafted{&rolled, guess[static_cast<size_t>(i)]};
    drafting_->NextDrafts({&drafted, 1});
  }
  Append(*drafting_, rolled, guess, false);
  drafting_->TakeBack(rolled, 2);
  EXPECT_EQ(rolled.length(), 7);
  EXPECT_TRUE(Close(FirstDraft(*drafting_, rolled, rest[0]), ToDoubles(FirstDraft(*drafting_, straight, rest[0])), 1e-5, 0));
  EXPECT_TRUE(SameBits(Append(*drafting_, rolled, rest, false), Append(*plain_, plain, rest, false)));
}

TEST_P(GenerateTest, DraftsChangeNoAnswer) {
  int64_t drafted = 0, accepted = 0;
  for (const bool sampled : {false, true}) {
    for (int32_t first = 0; first < kVocab; ++first) {
      const std::vector<int32_t> prompt{first, 3, 4};
      const auto options = sampled ? Sampled : Options;
      const auto want = Generate(*plain_, nullptr, prompt, options(100, 0), {}).ids;
      for (const int64_t drafts : {1, 2, 7, 20, 64}) {
        const GenerateResult r = Generate(*drafting_, nullptr, prompt, options(100, drafts), {});
        EXPECT_EQ(r.ids, want) << drafts << " drafts, prompt " << first << (sampled ? " sampled" : "");
        drafted += r.drafted;
        accepted += r.accepted;
      }
    }
  }
  EXPECT_GT(accepted, drafted / 20) << "else nothing was tested";
  EXPECT_LT(accepted, drafted);
}

TEST_P(GenerateTest, ALongPromptIsDraftedFromAsInPieces) {
  std::vector<int32_t> prompt(1100);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i * i * 31 % kVocab);
  Sequence at_once(drafting_->pool()), in_pieces(drafting_->pool());
  for (size_t i = 0; i < prompt.size(); i += 512)
    Append(*drafting_, at_once, std::span(prompt).subspan(i, std::min<size_t>(512, 1100 - i)));
  for (size_t i = 0; i < prompt.size(); i += 100) Append(*drafting_, in_pieces, std::span(prompt).subspan(i, 100));
  EXPECT_TRUE(Close(FirstDraft(*drafting_, at_once, 2), ToDoubles(FirstDraft(*drafting_, in_pieces, 2)), 1e-4, 0));
}

// Prompts of all lengths, answers of all lengths.
std::vector<Request> Requests() {
  std::vector<Request> requests;
  for (const int64_t length : {1, 200, 2, 9, 90, 3, 700, 17, 40, 1, 64, 5, 130}) {
    Request r{{}, 10 + length % 23};
    for (int64_t i = 0; i < length; ++i) r.prompt.push_back(static_cast<int32_t>((i * i + length) * 31 % kVocab));
    requests.push_back(std::move(r));
  }
  return requests;
}

std::vector<std::vector<int32_t>> Answers(Engine& engine, std::span<const Request> requests, const GenerateOptions& options,
                                          int64_t batch) {
  std::vector<std::vector<int32_t>> answers(requests.size());
  const GenerateEvents events{{}, [&](size_t i, const GenerateResult& r) {
                                EXPECT_TRUE(answers[i].empty());
                                answers[i] = r.ids;
                              }};
  GenerateAll(engine, nullptr, requests, options, batch, events);
  return answers;
}

void ExpectTheSameAnswers(const MappedModel& model, const MappedModel& drafting_model, const GenerateOptions& options, bool by_row) {
  const std::vector<Request> requests = Requests(), reversed(requests.rbegin(), requests.rend());
  Engine plain(model, 8, by_row), drafting(drafting_model, 8, by_row);
  GenerateOptions with_drafts = options;
  with_drafts.draft_tokens = 3;
  const auto want = Answers(plain, requests, options, 1);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(std::ssize(want[i]), requests[i].max_new_tokens);
  for (const int64_t batch : {2, 3, 8}) {
    EXPECT_EQ(Answers(plain, requests, options, batch), want) << batch;
    EXPECT_EQ(Answers(drafting, requests, with_drafts, batch), want) << batch << " with drafts";
  }
  auto backwards = Answers(plain, reversed, options, 4);
  std::ranges::reverse(backwards);
  EXPECT_EQ(backwards, want);
  SetThreads(3);
  EXPECT_EQ(Answers(plain, requests, options, 8), want);
  SetThreads(1);
  EXPECT_EQ(plain.pool().FreeBlocks(), plain.pool().blocks());
  EXPECT_EQ(drafting.pool().FreeBlocks(), drafting.pool().blocks());
}

TEST_P(GenerateTest, AnswersDoNotDependOnNeighboursOrDrafts) {
  const MappedModel rounding(Checkpoint::Open(dir_), DType::kBF16, 1200),
      rounding_drafts(Checkpoint::Open(dir_), DType::kBF16, 1200, {.enabled = true});
  for (const GenerateOptions& options : {Options(0, 0), Sampled(0, 0)}) {
    for (const bool by_row : {false, true}) {
      ExpectTheSameAnswers(*model_, *drafting_model_, options, by_row);
      ExpectTheSameAnswers(rounding, rounding_drafts, options, by_row);
    }
  }
}

MeshSizes MeshOf(int64_t expert, int64_t tensor) {
  MeshSizes sizes;
  sizes[static_cast<size_t>(Axis::kExpert)].ici = expert;
  sizes[static_cast<size_t>(Axis::kTensor)].ici = tensor;
  return sizes;
}

// Every rank gives the answers of one process, drafted or not; which way is faster they find alike, though their clocks differ.
TEST_P(GenerateTest, RanksGiveTheAnswersOfOneProcess) {
  std::vector<Request> requests = Requests();
  requests.resize(6);
  for (const GenerateOptions& options : {Options(0, 0), Sampled(0, 0)}) {
    const auto want = Answers(*plain_, requests, options, 1);
    GenerateOptions with_drafts = options;
    with_drafts.draft_tokens = 3;
    for (const auto& [expert, tensor] : {std::pair{1, 2}, {2, 1}, {4, 1}, {2, 2}}) {
      RunRanks(expert * tensor, [&](const Comm& world) {
        const Mesh mesh(world, MeshOf(expert, tensor));
        const MappedModel model(Checkpoint::Open(dir_), DType::kF32, 1200, {.enabled = true}, {}, {}, mesh);
        Engine engine(model, 3);
        EXPECT_EQ(SlowestOf(model.groups(), world.rank() + 0.5), world.size() - 0.5);
        EXPECT_EQ(Answers(engine, requests, options, 3), want) << "expert " << expert << ", tensor " << tensor;
        EXPECT_EQ(Answers(engine, requests, with_drafts, 3), want) << "drafts, expert " << expert << ", tensor " << tensor;
      });
    }
  }
}

// Four prompts that begin alike: the answers that each has alone, and the beginning is in the cache once.
TEST_P(GenerateTest, PromptsShareTheirBeginning) {
  std::vector<Request> requests;
  for (int32_t n = 0; n < 4; ++n) {
    Request r{{}, 12};
    for (int32_t i = 0; i < 640 + n; ++i) r.prompt.push_back(i < 530 ? i * i * 31 % kVocab : (i * i + n) * 17 % kVocab);
    requests.push_back(std::move(r));
  }
  for (const bool by_row : {false, true}) {
    Engine engine(*model_, 4, by_row);
    const auto want = Answers(engine, requests, Options(0, 0), 1);
    int64_t most = 0;
    const GenerateEvents events{{}, [&](size_t i, const GenerateResult& r) {
                                  EXPECT_EQ(r.ids, want[i]);
                                  most = std::max(most, engine.pool().blocks() - engine.pool().FreeBlocks());
                                }};
    GenerateAll(engine, nullptr, requests, Options(0, 0), 4, events);
    EXPECT_LE(most, 11 + 3 * 4) << "alone each takes 11 blocks";
    EXPECT_EQ(engine.pool().FreeBlocks(), engine.pool().blocks());
  }
}

// Probability of each continuation of so_far to `length` tokens, by trying all.
void Enumerate(Engine& engine, Sampler& sampler, std::vector<int32_t>& so_far, size_t length, double p,
               std::map<std::vector<int32_t>, double>& out) {
  if (so_far.size() == length) {
    out[so_far] = p;
    return;
  }
  Sequence sequence(engine.pool());
  const Engine::Part part{&sequence, so_far, 1, true};
  const ConstView logits = engine.Append({&part, 1});
  const auto q = sampler.Distribution({logits.data<float>(), static_cast<size_t>(logits.dim(1))});
  const std::vector<double> probabilities(q.begin(), q.end());
  for (size_t id = 0; id < probabilities.size(); ++id) {
    so_far.push_back(static_cast<int32_t>(id));
    if (probabilities[id] > 0) Enumerate(engine, sampler, so_far, length, p * probabilities[id], out);
    so_far.pop_back();
  }
}

TEST_P(GenerateTest, SampledAnswersHaveTheModelsDistribution) {
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
  EXPECT_GT(accepted, drafted / 10);
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

// In the middle of a prompt; the next answer is what it would have been.
TEST_P(GenerateTest, APassStopsBetweenLayers) {
  Engine engine(*model_, 1);
  const std::vector<int32_t> prompt(9, 2);
  const GenerateOptions options{.max_new_tokens = 5, .ignore_eos = true};
  const auto expected = Generate(engine, nullptr, prompt, options, {}).ids;
  int asked = 0;
  engine.StopWhen([&] { return ++asked == 2; });
  EXPECT_THROW(Generate(engine, nullptr, prompt, options, {}), Stopped);
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(Generate(engine, nullptr, prompt, options, {}).ids, expected);
}

TEST_P(GenerateTest, ACheckpointWithoutAModuleIsRefused) {
  EXPECT_THROW(MappedModel(Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v2"), DType::kF32, 16, {.enabled = true}),
               Error);
}

INSTANTIATE_TEST_SUITE_P(Families, GenerateTest, testing::Values(ModelFamily::kV3, ModelFamily::kV32),
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

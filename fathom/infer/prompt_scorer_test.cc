// Logits behind prompts do not depend on what the prompts share, nor on the order in which they come.
#include "fathom/infer/prompt_scorer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"

namespace fathom {
namespace {

std::vector<int32_t> Ids(int64_t n, int32_t seed) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>((seed * 13 + 7 * i + i * i) % 97));
  return ids;
}

std::vector<int32_t> Join(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(PrefixTree, SharesNestedBeginnings) {
  const auto head = Ids(40, 1), middle = Ids(30, 2);
  const std::vector<ScoredPrompt> prompts = {
      {Join(Join(head, middle), Ids(5, 3))}, {Join(head, Ids(9, 4))}, {Join(Join(head, middle), Ids(7, 5)), 3}, {Ids(8, 6)}};
  const auto nodes = BuildPrefixTree(prompts, 0);
  ASSERT_EQ(nodes.size(), 6u);
  int64_t tokens = 0;
  std::map<size_t, int64_t> lengths;
  for (size_t i = 0; i < nodes.size(); ++i) {
    ASSERT_TRUE(nodes[i].parent < static_cast<int64_t>(i));
    tokens += nodes[i].end - nodes[i].begin;
    if (!nodes[i].leaf) continue;
    EXPECT_EQ(nodes[i].end, std::ssize(prompts[nodes[i].prompt].ids));
    for (int64_t at = static_cast<int64_t>(i); at >= 0; at = nodes[static_cast<size_t>(at)].parent)
      lengths[nodes[i].prompt] += nodes[static_cast<size_t>(at)].end - nodes[static_cast<size_t>(at)].begin;
  }
  EXPECT_EQ(tokens, 40 + 30 + 5 + 9 + 7 + 8);
  for (size_t i = 0; i < prompts.size(); ++i) EXPECT_EQ(lengths[i], std::ssize(prompts[i].ids));
}

TEST(PrefixTree, ScoredTokensAreNotShared) {
  const std::vector<ScoredPrompt> twice = {{Ids(60, 1), 20}, {Ids(60, 1), 1}};
  EXPECT_EQ(SharedLength(twice), 40);
  const auto nodes = BuildPrefixTree(twice, 0);
  ASSERT_EQ(nodes.size(), 3u);
  EXPECT_EQ(nodes[0].end, 40);
  EXPECT_EQ(SharedLength({twice.data(), 1}), 0);
}

class PromptScorerTest : public testing::TestWithParam<const char*> {
 protected:
  PromptScorerTest() : model_(Open(GetParam())) { SetThreads(1); }
  ~PromptScorerTest() override { SetThreads(0); }
  static MappedModel Open(const char* name) {
    return {Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / name), DType::kF32, 900};
  }
  using Logits = std::map<std::pair<size_t, int64_t>, std::vector<float>>;
  Logits Score(std::span<const int32_t> beginning, std::span<const ScoredPrompt> prompts, bool by_row = false) const {
    Logits got;
    PromptScorer scorer(model_, by_row);
    scorer.SetBeginning(Ids(20, 77));  // another one before
    scorer.SetBeginning(beginning);
    scorer.Score(prompts, [&](size_t prompt, int64_t k, std::span<const float> logits) {
      EXPECT_TRUE(got.emplace(std::pair(prompt, k), std::vector<float>(logits.begin(), logits.end())).second);
    });
    return got;
  }
  // Each prompt alone, in one pass.
  Logits Alone(std::span<const ScoredPrompt> prompts) const {
    Logits got;
    Engine engine(model_, 1);
    for (size_t i = 0; i < prompts.size(); ++i) {
      Sequence sequence(engine.pool());
      const Engine::Part part{&sequence, prompts[i].ids, prompts[i].scored, true};
      const ConstView logits = engine.Append({&part, 1});
      for (int64_t k = 0; k < prompts[i].scored; ++k) got[{i, k}] = {logits.row<float>(k), logits.row<float>(k) + logits.dim(1)};
    }
    return got;
  }
  static void ExpectNear(const Logits& got, const Logits& want) {
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [key, values] : want) {
      ASSERT_TRUE(got.contains(key)) << key.first << " " << key.second;
      double error = 0, size = 0;
      for (size_t v = 0; v < values.size(); ++v) {
        error = std::max(error, std::abs(static_cast<double>(got.at(key)[v]) - values[v]));
        size = std::max(size, std::abs(static_cast<double>(values[v])));
      }
      EXPECT_TRUE(error <= 2e-5 * size) << "prompt " << key.first << ", token " << key.second << ": " << error << " of " << size;
    }
  }
  // Short and long, nested, twice the same, longer than a pass.
  static std::vector<ScoredPrompt> Prompts(const std::vector<int32_t>& beginning) {
    const auto passage = Join(beginning, Ids(90, 3)), other_passage = Join(beginning, Ids(90, 8));
    std::vector<ScoredPrompt> prompts = {
        {Join(beginning, Ids(700, 2))}, {Join(other_passage, Ids(14, 7))}, {Join(other_passage, Ids(13, 9))}, {Join(passage, Ids(12, 4))},
        {Join(passage, Ids(9, 5)), 4},  {Join(beginning, Ids(3, 6)), 3},   {Join(passage, Ids(12, 4))}};
    for (int32_t i = 0; i < 70; ++i) prompts.push_back({Join(beginning, Ids(1 + i % 9, 10 + i))});
    return prompts;
  }

  MappedModel model_;
};

TEST_P(PromptScorerTest, TheSameAsEachAlone) {
  const auto beginning = Ids(100, 1);
  const auto prompts = Prompts(beginning);
  ExpectNear(Score(beginning, prompts), Alone(prompts));
  ExpectNear(Score({}, prompts), Alone(prompts));
}

TEST_P(PromptScorerTest, TheSameBitsAgain) {
  const auto beginning = Ids(100, 1);
  const auto prompts = Prompts(beginning);
  EXPECT_EQ(Score(beginning, prompts), Score(beginning, prompts));
}

TEST_P(PromptScorerTest, ByRowTheSameBitsWithAnyNeighbours) {
  const auto beginning = Ids(100, 1);
  const auto prompts = Prompts(beginning);
  const Logits all = Score(beginning, prompts, true), few = Score({}, std::span(prompts).subspan(0, 4), true);
  for (const auto& [key, values] : few) EXPECT_EQ(all.at(key), values) << key.first;
}

INSTANTIATE_TEST_SUITE_P(Models, PromptScorerTest, testing::Values("v3", "v2-lite"));

}  // namespace
}  // namespace fathom

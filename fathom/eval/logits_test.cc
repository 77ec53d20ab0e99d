#include "fathom/eval/logits.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "fathom/base/error.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

using Rows = std::vector<std::vector<double>>;

TEST(KlDivergence, OfTwoCoins) {
  const std::vector<double> p = {std::log(0.75), std::log(0.25)}, q = {std::log(0.5) + 3, std::log(0.5) + 3};
  EXPECT_NEAR(KlDivergence(p, q), 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-15);
  EXPECT_EQ(KlDivergence(p, p), 0);
  EXPECT_NEAR(KlDivergence(p, q, 1e-9), KlDivergence(p, q), 1e-8);
}

TEST(CompareLogits, FindsTheWorst) {
  const Rows golden = {{1, 2, 3}, {4, 5, 6}}, model = {{1, 2, 3, 9}, {4, 5.5, 6, 9}};
  const LogitReport r = CompareLogits(golden, model, {.atol = 0.1});
  EXPECT_DOUBLE_EQ(r.max_abs, 0.5);
  EXPECT_EQ(r.max_abs_position, 1);
  EXPECT_EQ(r.max_abs_id, 1);
  EXPECT_DOUBLE_EQ(r.max_rel, 0.1);
  EXPECT_FALSE(r.Passes({.atol = 0.1}));
  EXPECT_TRUE(CompareLogits(golden, model, {.atol = 0.1, .token_size = 1}).Passes({.atol = 0.1}));
  EXPECT_EQ(CompareLogits(golden, model, {.atol = 0.1, .skip_first_token = true}).kl.size(), 1u);
}

TEST(CompareLogits, NaNNeverPasses) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const LogitBars both{.atol = 1e9, .max_kl_div = 1e9};
  EXPECT_FALSE(CompareLogits({{1, 2}}, {{1, nan}}, both).Passes(both));
}

TEST(ReadGoldenLogits, SaysWhatIsWrong) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "g.jsonl";
  for (const char* bad : {"{", "{\"tokens\": [1]}", "{\"tokens\": [1, 2], \"logits\": [[1.0]]}",
                          "{\"tokens\": [1, 2], \"logits\": [[1.0], [1.0, 2.0]]}", "version https://git-lfs.github.com/spec/v1"}) {
    std::ofstream(file) << bad << "\n";
    EXPECT_THROW(ReadGoldenLogits(file, [](GoldenLogits) {}), Error) << bad;
  }
  std::ofstream(file) << "{\"prompt\": \"x\", \"tokens\": [1, 2], \"logits\": [[1.0, 0], [1.0, 2.0]]}\n";
  int lines = 0;
  ReadGoldenLogits(file, [&](const GoldenLogits& g) { lines += g.tokens.size() == 2; });
  EXPECT_EQ(lines, 1);
}

TEST(TopTenTable, CountsSharedIds) {
  EXPECT_NE(TopTenTable(std::vector<double>{3, 2, 1}, std::vector<double>{3, 1, 2}).find("3 ids shared, Jaccard 1.000, 1 at the same rank"),
            std::string::npos);
}

}  // namespace
}  // namespace fathom

#include "fathom/eval/choice_results.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fathom {
namespace {

// The standard error of a mean of `n` values of which `k` are 1 and the others 0, from the definition.
double StandardError(int64_t n, int64_t k) {
  const double mean = static_cast<double>(k) / static_cast<double>(n);
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) squares += std::pow((i < k ? 1 : 0) - mean, 2);
  return std::sqrt(squares / static_cast<double>(n - 1) / static_cast<double>(n));
}

void ExpectClose(const Json& found, double wanted) {
  EXPECT_TRUE(std::abs(found.get<double>() - wanted) <= 1e-12) << found << " for " << wanted;
}

// A biology, two subjects of health, of very different sizes.
std::vector<SubjectScore> Scores() {
  return {{"anatomy", 135, 100, 25, {}}, {"college_biology", 144, 10, 9, {}}, {"virology", 166, 4, 1, {}}};
}

TEST(ChoiceResults, EveryQuestionCountsOnce) {
  const Json results = MmluJson(Scores(), 5)["results"];
  ExpectClose(results["mmlu"]["acc,none"], 35.0 / 114);
  ExpectClose(results["mmlu_other"]["acc,none"], 26.0 / 104);
  ExpectClose(results["mmlu_stem"]["acc,none"], 0.9);
  ExpectClose(results["mmlu_anatomy"]["acc,none"], 0.25);
  EXPECT_FALSE(results.contains("mmlu_humanities"));
}

TEST(ChoiceResults, StandardErrors) {
  const Json results = MmluJson(Scores(), 5)["results"];
  ExpectClose(results["mmlu_anatomy"]["acc_stderr,none"], StandardError(100, 25));
  ExpectClose(results["mmlu_stem"]["acc_stderr,none"], StandardError(10, 9));
  const double a = std::pow(StandardError(100, 25), 2) * 100 * 99, b = std::pow(StandardError(4, 1), 2) * 4 * 3;
  ExpectClose(results["mmlu_other"]["acc_stderr,none"], std::sqrt((a + b) / (104 - 2) / 104));
  const Json one = MmluJson({{"virology", 166, 1, 1, {}}}, 0)["results"];
  EXPECT_EQ(one["mmlu_virology"]["acc_stderr,none"], "N/A");
}

TEST(ChoiceResults, Shape) {
  const Json json = MmluJson(Scores(), 5);
  EXPECT_EQ(json["n-samples"]["mmlu_anatomy"], (Json{{"original", 135}, {"effective", 100}}));
  EXPECT_EQ(json["n-shot"]["mmlu_virology"], 5);
  EXPECT_EQ(json["group_subtasks"]["mmlu"], (Json{"mmlu_stem", "mmlu_other"}));
  EXPECT_EQ(json["groups"]["mmlu_other"], json["results"]["mmlu_other"]);
  ExpectClose(json["subcategories"]["health"]["acc,none"], 26.0 / 104);
  EXPECT_FALSE(json["results"]["mmlu"].contains("acc_norm,none"));
}

TEST(ChoiceResults, NormalisedToo) {
  const Json results = MmluJson({{"virology", 166, 4, 1, 3}}, 5)["results"];
  ExpectClose(results["mmlu_virology"]["acc_norm,none"], 0.75);
  ExpectClose(results["mmlu_virology"]["acc_norm_stderr,none"], StandardError(4, 3));
}

TEST(ChoiceResults, Table) {
  const std::string table = MmluTable(Scores());
  for (const char* part : {"college biology", "by subcategory\n  biology", "  social", "all "})
    EXPECT_EQ(table.find(part) != table.npos, std::string(part) != "  social") << part << "\n" << table;
  EXPECT_NE(table.find(" 25.00 ±  4.35     100\n"), table.npos) << table;
}

}  // namespace
}  // namespace fathom

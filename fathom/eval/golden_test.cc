// Whole models against values computed in double precision, as tests/data/golden/README.md says.
#include "fathom/eval/golden.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fathom {
namespace {

namespace fs = std::filesystem;

class GoldenTest : public testing::TestWithParam<const char*> {};

fs::path Folder(const std::string& name) { return fs::path(FATHOM_TEST_DATA) / "golden" / name; }

TEST_P(GoldenTest, EveryArrayIsThereAndWithinItsBound) {
  const GoldenCase golden(Checkpoint::Open(Folder(GetParam())));
  const auto rows = CompareGolden(golden, ComputeGolden(golden, DType::kF32));
  EXPECT_FALSE(rows.empty());
  for (const GoldenRow& r : rows) EXPECT_TRUE(r.ok) << r.name << ": " << r.measure << " " << r.error << ", at most " << r.bound;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::Values("v2-lite", "v2", "v3", "v3-bf16", "v32-fp8", "v32-indexer-training"));

// What V3.2's attention over chosen keys is, it is in each of its forms.
TEST(Golden, HoldsInEveryFormOfSparseAttention) {
  for (const char* name : {"v32-fp8", "v32-indexer-training"}) {
    for (const ChosenForm form : {ChosenForm::kAbsorbed, ChosenForm::kShared}) {
      GoldenCase golden(Checkpoint::Open(Folder(name)));
      golden.layers.chosen_form = form;
      for (const GoldenRow& r : CompareGolden(golden, ComputeGolden(golden, DType::kF32)))
        EXPECT_TRUE(r.ok) << name << " " << r.name << ": " << r.measure << " " << r.error << ", at most " << r.bound;
    }
  }
}

TEST(Golden, AnAbsentArrayIsARowThatIsNotOk) {
  const GoldenCase golden(Checkpoint::Open(Folder("v32-fp8")));
  GoldenArrays got = ComputeGolden(golden, DType::kF32);
  const size_t whole = CompareGolden(golden, got).size();
  ASSERT_EQ(got.erase("exact.mid_top_mask.1"), 1u);
  const auto rows = CompareGolden(golden, got);
  EXPECT_EQ(rows.size(), whole);
  for (const GoldenRow& r : rows) EXPECT_EQ(r.ok, r.name != "exact.mid_top_mask.1") << r.name;
}

double RmsError(const Tensor& got, const Tensor& truth) {
  double sum = 0;
  for (int64_t i = 0; i < truth.NumElements(); ++i) {
    const double d = got.data<float>()[i] - truth.data<double>()[i];
    sum += d * d;
  }
  return std::sqrt(sum / static_cast<double>(truth.NumElements()));
}

// What rounding to BF16 may cost: that of transformers in bfloat16 on the same folder, whose error golden.json holds. A rounding that flips
// an expert makes single sets jump, for either side; so the bar is on the geometric mean.
TEST(GoldenBF16, IsNearerToTheTruthThanTransformersIs) {
  double sum_of_logs = 0;
  int sets = 0;
  for (const char* name : {"v2-lite", "v2", "v3", "v3-bf16"}) {
    const GoldenCase golden(Checkpoint::Open(Folder(name)));
    const GoldenArrays got = ComputeGolden(golden, DType::kBF16);
    for (const auto& [array, theirs] : golden.info["transformers_bf16_rms"].items()) {
      const double ratio = RmsError(got.at(array), golden.Expected(array)) / theirs.get<double>();
      EXPECT_GT(ratio, 0.05) << name << " " << array << ": bf16 must round somewhere";
      sum_of_logs += std::log(ratio);
      ++sets;
    }
  }
  ASSERT_EQ(sets, 8);
  RecordProperty("ratio", std::to_string(std::exp(sum_of_logs / sets)));
  EXPECT_TRUE(std::exp(sum_of_logs / sets) <= 0.8) << std::exp(sum_of_logs / sets);
}

}  // namespace
}  // namespace fathom

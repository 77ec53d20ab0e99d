// Whole models against values computed in double precision, as tests/data/golden/README.md says.
#include "fathom/eval/golden.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

class GoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, EveryArrayIsWithinItsBound) {
  const GoldenCase golden(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / GetParam());
  const auto rows = CompareGolden(golden, ComputeGolden(golden, DType::kF32));
  EXPECT_GT(rows.size(), 50u);
  for (const GoldenRow& r : rows) EXPECT_TRUE(r.ok) << r.name << ": " << r.measure << " " << r.error << ", at most " << r.bound;
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::Values("v2-lite", "v2", "v3", "v32-indexer-training"));

TEST(GoldenBF16, IsNoFurtherFromTheTruthThanRoundingExplains) {
  const GoldenCase golden(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v2-lite");
  const GoldenArrays f32 = ComputeGolden(golden, DType::kF32), bf16 = ComputeGolden(golden, DType::kBF16);
  const Tensor &a = f32.at("mid_loss"), &b = bf16.at("mid_loss");
  EXPECT_NEAR(*a.data<double>(), *b.data<double>(), 0.02 * *a.data<double>());
  EXPECT_NE(*a.data<double>(), *b.data<double>()) << "bf16 must round somewhere";
}

}  // namespace
}  // namespace fathom

#include "fathom/eval/divergence.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fathom/base/error.h"
#include "fathom/base/threads.h"
#include "fathom/eval/forward.h"
#include "fathom/eval/logits.h"
#include "fathom/parallel/test_threads.h"

namespace fathom {
namespace {

Checkpoint Open(const char* name) { return Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / name); }

std::vector<int32_t> Ids(int64_t n, int32_t first) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>((first + 7 * i + i * i) % 264));
  return ids;
}

std::vector<double> Row(const Tensor& logits, int64_t row) {
  const float* values = logits.data<float>() + row * logits.dim(1);
  return {values, values + logits.dim(1)};
}

// The targets behind tokens [from, ids.size() - 1) of a window, from whole forwards.
void AddWindow(std::span<const int32_t> ids, int64_t from, DivergenceResult& sum) {
  ForwardModel reference(Open("v2"), DType::kF32), model(Open("v3"), DType::kF32);
  const Tensor a = reference.Logits(ids.first(ids.size() - 1)), b = model.Logits(ids.first(ids.size() - 1));
  for (int64_t i = from; i < a.dim(0); ++i) {
    const auto p = Row(a, i), q = Row(b, i);
    const double kl = KlDivergence(p, q);
    sum.kl += kl;
    sum.worst_kl = std::max(sum.worst_kl, kl);
    sum.agreements += std::ranges::max_element(p) - p.begin() == std::ranges::max_element(q) - q.begin() ? 1 : 0;
    ++sum.targets;
  }
}

class DivergenceTest : public testing::Test {
 protected:
  DivergenceTest() { SetThreads(1); }
  ~DivergenceTest() override { SetThreads(0); }
  static DivergenceResult Measure(const char* reference, const std::vector<std::vector<int32_t>>& documents, int64_t window, int64_t stride,
                                  const TextRanks& ranks = {}) {
    const MappedModel a(Open(reference), DType::kF32, window), b(Open("v3"), DType::kF32, window);
    DivergenceMeter meter(a, b, {window, stride, {}, ranks});
    for (const auto& ids : documents) meter.Add(ids, 1);
    return meter.Finish();
  }
};

TEST_F(DivergenceTest, OfTwoModels) {
  const auto a = Ids(20, 3), b = Ids(9, 5);
  const DivergenceResult r = Measure("v2", {a, b}, 16, 6);
  DivergenceResult wanted;
  AddWindow(std::span(a).subspan(0, 17), 0, wanted);
  AddWindow(std::span(a).subspan(6, 14), 10, wanted);
  AddWindow(b, 0, wanted);
  EXPECT_EQ(r.targets, 19 + 8);
  EXPECT_EQ(r.documents, 2);
  EXPECT_EQ(r.agreements, wanted.agreements);
  EXPECT_TRUE(std::abs(r.kl - wanted.kl) <= 1e-4 * wanted.kl) << r.kl << " for " << wanted.kl;
  EXPECT_TRUE(std::abs(r.worst_kl - wanted.worst_kl) <= 1e-4 * wanted.worst_kl) << r.worst_kl << " for " << wanted.worst_kl;
  EXPECT_TRUE(r.worst_kl > r.MeanKl());
}

TEST_F(DivergenceTest, TheWorstTokenIsNamed) {
  const auto a = Ids(20, 3), b = Ids(30, 8);
  const DivergenceResult r = Measure("v2", {a, b}, 16, 16);
  const auto& ids = r.worst_document == 0 ? a : b;
  ForwardModel reference(Open("v2"), DType::kF32), model(Open("v3"), DType::kF32);
  const int64_t begin = r.worst_token / 16 * 16;
  const auto window = std::span(ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(r.worst_token - begin + 1));
  const double kl = KlDivergence(Row(reference.Logits(window), r.worst_token - begin), Row(model.Logits(window), r.worst_token - begin));
  EXPECT_TRUE(std::abs(kl - r.worst_kl) <= 1e-4 * kl) << kl << " for " << r.worst_kl;
}

TEST_F(DivergenceTest, OfAModelAndItself) {
  const DivergenceResult r = Measure("v3", {Ids(700, 3), Ids(40, 4)}, 650, 650);
  EXPECT_EQ(r.targets, 699 + 39);
  EXPECT_EQ(r.kl, 0);
  EXPECT_EQ(r.Agreement(), 1);
  EXPECT_EQ(r.nll, r.reference_nll);
  const MappedModel mapped(Open("v3"), DType::kF32, 650);
  ForwardModel model(Open("v3"), DType::kF32);
  PerplexityMeter meter(model, {650, 650, {}});
  meter.Add(Ids(700, 3), 1, 1);
  meter.Add(Ids(40, 4), 1, 1);
  const double nll = meter.Finish().nll;
  EXPECT_TRUE(std::abs(r.nll - nll) <= 1e-5 * nll) << r.nll << " for " << nll;
}

// Text enough for three groups; the last rank has none of a short text.
TEST_F(DivergenceTest, RanksThatDivideTheWindowsFindTheBitsOfOne) {
  const std::vector<std::vector<int32_t>> lengthy(30, Ids(640, 3)), brief = {Ids(50, 3), Ids(40, 4)};
  for (const auto& documents : {lengthy, brief}) {
    const DivergenceResult one = Measure("v2", documents, 320, 320);
    RunRanks(2, [&](const Comm& world) {
      const TextRanks share{world.rank(), world.size(), [&](std::span<double> x) { world.AllSum(x); }};
      const DivergenceResult r = Measure("v2", documents, 320, 320, share);
      EXPECT_EQ(r.targets, one.targets);
      EXPECT_EQ(r.agreements, one.agreements);
      EXPECT_EQ(r.kl, one.kl);
      EXPECT_EQ(r.nll, one.nll);
      EXPECT_EQ(r.reference_nll, one.reference_nll);
      EXPECT_EQ(r.worst_kl, one.worst_kl);
      EXPECT_EQ(r.worst_document, one.worst_document);
      EXPECT_EQ(r.worst_token, one.worst_token);
    });
  }
}

TEST_F(DivergenceTest, Refusals) {
  EXPECT_THROW(Measure("v3-bf16", {Ids(9, 1)}, 16, 16), Error);  // another vocabulary
  EXPECT_THROW(Measure("v2", {Ids(9, 1)}, 16, 17), Error);
  EXPECT_THROW(Measure("v2", {Ids(1, 1)}, 16, 16), Error);
}

}  // namespace
}  // namespace fathom

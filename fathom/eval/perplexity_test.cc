#include "fathom/eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "fathom/base/error.h"
#include "fathom/parallel/test_threads.h"

namespace fathom {
namespace {

constexpr int64_t kBytes = 100;

ForwardModel& Model() {
  static ForwardModel model(Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v3"), DType::kF32);
  return model;
}

std::vector<int32_t> Ids(int64_t n, int32_t first) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>((first + 7 * i + i * i) % Model().config().vocab_size));
  return ids;
}

// -log softmax(logits)[target] of the last `counted` targets, from the logits of this window alone.
double Nll(std::span<const int32_t> ids, int64_t counted) {
  const Tensor logits = Model().Logits(ids.first(ids.size() - 1));
  double nll = 0;
  for (int64_t i = logits.dim(0) - counted; i < logits.dim(0); ++i) {
    const float* row = logits.data<float>() + i * logits.dim(1);
    double sum = 0;
    for (int64_t v = 0; v < logits.dim(1); ++v) sum += std::exp(static_cast<double>(row[v]));
    nll += std::log(sum) - row[ids[static_cast<size_t>(i + 1)]];
  }
  return nll;
}

PerplexityResult Measure(const std::vector<std::vector<int32_t>>& documents, int64_t window, int64_t stride) {
  PerplexityMeter meter(Model(), {window, stride, {}});
  for (const auto& ids : documents) meter.Add(ids, kBytes + 1, kBytes);
  return meter.Finish();
}

void ExpectClose(double found, double wanted) { EXPECT_TRUE(std::abs(found - wanted) <= 1e-5 * wanted) << found << " for " << wanted; }

TEST(Perplexity, OneDocument) {
  const auto ids = Ids(20, 3);
  const PerplexityResult r = Measure({ids}, 64, 64);
  EXPECT_EQ(r.targets, 19);
  ExpectClose(r.nll, Nll(ids, 19));
  ExpectClose(r.Perplexity(), std::exp(r.nll / 19));
  ExpectClose(r.BitsPerByte(), r.nll / std::log(2.0) / kBytes);
}

TEST(Perplexity, PackedDocumentsDoNotSeeEachOther) {
  const auto a = Ids(9, 3), b = Ids(14, 5), c = Ids(30, 8);
  const PerplexityResult r = Measure({a, b, c}, 32, 32);
  EXPECT_EQ(r.documents, 3);
  EXPECT_EQ(r.targets, 8 + 13 + 29);
  ExpectClose(r.nll, Nll(a, 8) + Nll(b, 13) + Nll(c, 29));
}

TEST(Perplexity, WindowsWithoutOverlap) {
  const auto ids = Ids(20, 3);
  const std::span<const int32_t> all = ids;
  const PerplexityResult r = Measure({ids}, 8, 8);
  EXPECT_EQ(r.targets, 19);
  ExpectClose(r.nll, Nll(all.subspan(0, 9), 8) + Nll(all.subspan(8, 9), 8) + Nll(all.subspan(16, 4), 3));
}

// Every target once, later ones with five tokens or more before them.
TEST(Perplexity, OverlappingWindows) {
  const auto ids = Ids(16, 3);
  const std::span<const int32_t> all = ids;
  const PerplexityResult r = Measure({ids}, 8, 3);
  EXPECT_EQ(r.targets, 15);
  ExpectClose(r.nll, Nll(all.subspan(0, 9), 8) + Nll(all.subspan(3, 9), 3) + Nll(all.subspan(6, 9), 3) + Nll(all.subspan(9, 7), 1));
}

TEST(Perplexity, RanksThatDivideThePassesFindTheBitsOfOne) {
  const std::vector<std::vector<int32_t>> documents = {Ids(70, 3), Ids(9, 5), Ids(14, 5), {}, Ids(30, 8)};
  const PerplexityResult one = Measure(documents, 16, 12);
  for (const int ranks : {2, 3, 20}) {
    std::vector<PerplexityResult> results(static_cast<size_t>(ranks));
    RunRanks(ranks, [&](const Comm& world) {
      ForwardModel model(Checkpoint::Open(std::filesystem::path(FATHOM_TEST_DATA) / "golden" / "v3"), DType::kF32);
      PerplexityMeter meter(model, {16, 12, {}, {world.rank(), world.size(), [&](std::span<double> x) { world.AllSum(x); }}});
      for (const auto& ids : documents) meter.Add(ids, kBytes + 1, kBytes);
      results[static_cast<size_t>(world.rank())] = meter.Finish();
    });
    for (const PerplexityResult& r : results) {
      EXPECT_EQ(r.nll, one.nll) << ranks << " ranks";
      EXPECT_EQ(r.targets, one.targets);
      EXPECT_EQ(r.documents, 5);
      EXPECT_EQ(r.target_bytes, one.target_bytes);
    }
  }
}

TEST(Perplexity, Refusals) {
  for (const PerplexityOptions& options : {PerplexityOptions{0, 0, {}}, PerplexityOptions{8, 0, {}}, PerplexityOptions{8, 9, {}},
                                           PerplexityOptions{int64_t{1} << 40, 1, {}}}) {
    EXPECT_THROW(PerplexityMeter(Model(), options), Error);
  }
  EXPECT_THROW(Measure({{}, {1}}, 8, 8), Error);
}

}  // namespace
}  // namespace fathom

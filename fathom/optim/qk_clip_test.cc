#include "fathom/optim/qk_clip.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fathom/base/types.h"
#include "fathom/testing/close.h"

namespace fathom {
namespace {

constexpr int64_t kNope = 3, kOther = 2, kColumns = 5;
// Below, at and above the threshold of 10; a head that saw nothing, and one whose scores are all negative.
const std::vector<float> kLargest = {4, 10, 40, -std::numeric_limits<float>::infinity(), -50};

// Kimi K2's rule, element by element.
std::vector<double> Reference(const std::vector<float>& w, bool scales_other) {
  std::vector<double> out(w.begin(), w.end());
  for (size_t i = 0; i < w.size(); ++i) {
    const size_t row = i / kColumns, head = row / (kNope + kOther);
    const double g = kLargest[head] > 0 ? std::min(1.0, 10 / (kLargest[head] + 1e-6)) : 1;
    if (row % (kNope + kOther) < kNope)
      out[i] *= std::sqrt(g);
    else if (scales_other)
      out[i] *= g;
  }
  return out;
}

TEST(QkClip, ScalesHeadsBeyondTheThreshold) {
  const int64_t rows = std::ssize(kLargest) * (kNope + kOther);
  for (const bool queries : {false, true}) {
    std::vector<float> w = ToFloats(RandomVector(rows * kColumns, 1));
    const std::vector<double> want = Reference(w, queries);
    double grown = 0;
    for (size_t i = 0; i < w.size(); ++i) grown += want[i] * want[i] - static_cast<double>(w[i]) * w[i];
    std::vector<BF16> copy(w.size());
    for (size_t i = 0; i < w.size(); ++i) copy[i] = ToBF16(w[i]);
    const ClippedMatrix matrix{ViewOf(w.data(), {rows, kColumns}), ViewOf(copy.data(), {rows, kColumns}), 0, kNope, kOther, queries};
    EXPECT_NEAR(ClipHeads(kLargest, 10, matrix, {}), grown, 1e-5);
    EXPECT_TRUE(Close(w, want, 1e-7, 1e-6));
    for (size_t i = 0; i < w.size(); ++i) EXPECT_EQ(copy[i], ToBF16(w[i]));
  }
}

// Rows of several ranks, cut anywhere, get what one rank gives them; by chance, too.
TEST(QkClip, RowsMayBeCutAnywhere) {
  const int64_t rows = std::ssize(kLargest) * (kNope + kOther);
  std::vector<BF16> whole(static_cast<size_t>(rows * kColumns));
  const std::vector<double> values = RandomVector(rows * kColumns, 2);
  for (size_t i = 0; i < whole.size(); ++i) whole[i] = ToBF16(static_cast<float>(values[i]));
  std::vector<BF16> parts = whole;
  const auto clip = [&](std::vector<BF16>& w, int64_t begin, int64_t end) {
    const View view = ViewOf(w.data(), {rows, kColumns}).Rows(begin, end);
    return ClipHeads(kLargest, 10, {view, View(), begin, kNope, kOther, true}, {true, 9});
  };
  const double grown = clip(whole, 0, rows);
  double of_parts = 0;
  for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 7}, {7, 11}, {11, 14}, {14, rows}}) of_parts += clip(parts, begin, end);
  EXPECT_NEAR(of_parts, grown, 1e-7);
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(parts[i], whole[i]) << i;
}

TEST(QkClip, BF16WeightsMayBeRoundedByChance) {
  std::vector<BF16> w(static_cast<size_t>(2000 * kColumns), ToBF16(1));
  const ClippedMatrix matrix{ViewOf(w.data(), {2000, kColumns}), View(), 0, 2000, 0, false};
  ClipHeads(std::vector<float>{10.01f}, 10, matrix, {true, 9});
  double sum = 0;
  for (const BF16 x : w) sum += ToFloat(x);
  EXPECT_NEAR(sum / static_cast<double>(w.size()), std::sqrt(10 / 10.01), 1e-4);
}

}  // namespace
}  // namespace fathom

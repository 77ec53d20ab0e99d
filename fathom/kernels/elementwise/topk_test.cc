#include "fathom/kernels/elementwise/topk.h"

#include "fathom/kernels/elementwise/topk_ref.h"
#include "fathom/kernels/simd/simd.h"
#include "fathom/testing/kernel_check.h"

namespace fathom {
namespace {

void Check(const std::vector<float>& scores, int64_t k) {
  SCOPED_TRACE(testing::Message() << k << " of " << scores.size());
  constexpr int32_t kGuard = -77;
  std::vector<int32_t> ids(static_cast<size_t>(k) + 1, kGuard), work(scores.size() + 1, kGuard), want = TopKRef(scores, k);
  const std::span<int32_t> out(ids.data(), static_cast<size_t>(k)), scratch(work.data(), scores.size());
  TopK(scores, k, out, scratch);
  EXPECT_TRUE(std::equal(want.begin(), want.end(), ids.begin()));
  TopKSorted(scores, k, out, scratch);
  std::sort(want.begin(), want.begin() + std::min(k, std::ssize(scores)));
  EXPECT_TRUE(std::equal(want.begin(), want.end(), ids.begin()));
  EXPECT_EQ(ids.back(), kGuard);
  EXPECT_EQ(work.back(), kGuard);
}

TEST(TopK, EqualsAStableSort) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    for (const int64_t n : {0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 100, 2048, 5003}) {
      const auto scores = ToFloats(RandomVector(n, 1, 3.0));
      for (const int64_t k : {0, 1, 2, 8, 15, 16, 100, 2048}) Check(scores, k);
    }
  });
}

TEST(TopK, ManyEqualScores) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    std::vector<float> scores = ToFloats(RandomVector(1000, 1, 2.0));
    for (float& s : scores) s = std::round(s);  // also -0 beside 0
    for (const int64_t k : {1, 10, 63, 64, 500, 999}) Check(scores, k);
    Check(std::vector<float>(100, 1.5f), 37);
  });
}

TEST(TopK, NonFiniteScores) {
  ForEachTarget(SimdTargets(), PinSimdTarget, [] {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> scores = ToFloats(RandomVector(90, 1));
    for (size_t i = 0; i < scores.size(); i += 7) scores[i] = i % 3 == 0 ? inf : i % 3 == 1 ? -inf : nan;
    scores[1] = std::numeric_limits<float>::lowest();
    scores[2] = std::numeric_limits<float>::max();
    scores[3] = -nan;
    for (const int64_t k : {1, 5, 40, 80, 89}) Check(scores, k);
  });
}

}  // namespace
}  // namespace fathom

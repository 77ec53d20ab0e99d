#include "fathom/optim/spike_guard.h"

#include <gtest/gtest.h>

#include <cmath>

namespace fathom {
namespace {

// Losses 1, 2, 1, 2, ...: after an even number their mean is 1.5, the deviation of a sample sqrt(n / (n - 1)) / 2.
void Feed(SpikeGuard& guard, int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) EXPECT_FALSE(guard.IsSpike(1 + static_cast<double>(i % 2), 3)) << i;
}

TEST(SpikeGuard, LooksAtHalfAnIntervalAtLeast) {
  SpikeGuard early({16, 6}), late({16, 6});
  Feed(early, 6);
  EXPECT_FALSE(early.IsSpike(1e9, 3)) << "the seventh step of eight that are needed";
  Feed(late, 8);
  EXPECT_TRUE(late.IsSpike(1e9, 3));
}

TEST(SpikeGuard, IsSoManyDeviationsAboveTheMean) {
  const double deviation = std::sqrt(10.0 / 9) / 2;
  for (const double off : {5.99, 6.01}) {
    SpikeGuard guard({16, 6});
    Feed(guard, 10);
    EXPECT_EQ(guard.IsSpike(1.5 + off * deviation, 3), off > 6);
  }
  SpikeGuard norm({16, 6}), below({16, 6});
  Feed(norm, 10);
  EXPECT_TRUE(norm.IsSpike(1.5, 3.01)) << "a norm that never moved";
  Feed(below, 10);
  EXPECT_FALSE(below.IsSpike(-1e9, 0));
}

TEST(SpikeGuard, ANewLevelBecomesTheRule) {
  SpikeGuard guard({8, 2});
  Feed(guard, 8);
  EXPECT_TRUE(guard.IsSpike(100, 3));
  for (int i = 0; i < 8; ++i) guard.IsSpike(100 + i % 2, 3);
  EXPECT_FALSE(guard.IsSpike(101, 3));
}

TEST(SpikeGuard, GoesOnFromWhatItSaved) {
  for (const int64_t steps : {0, 5, 8, 21}) {
    SpikeGuard whole({8, 3}), resumed({8, 3});
    for (int64_t i = 0; i < steps; ++i) whole.IsSpike(static_cast<double>(i * i % 7), static_cast<double>(i % 3));
    ASSERT_TRUE(resumed.Restore(whole.count(), whole.losses(), whole.grad_norms()));
    for (int64_t i = 0; i < 20; ++i) {
      const double loss = static_cast<double>(i * i % 11), norm = static_cast<double>(i % 5);
      EXPECT_EQ(whole.IsSpike(loss, norm), resumed.IsSpike(loss, norm)) << steps << ' ' << i;
    }
  }
  SpikeGuard guard({8, 3});
  EXPECT_FALSE(guard.Restore(9, {1}, {1}));
  EXPECT_FALSE(guard.Restore(-1, {}, {}));
}

}  // namespace
}  // namespace fathom

#include "fathom/parallel/vigil.h"

#include <gtest/gtest.h>

namespace fathom {
namespace {

constexpr int64_t kPatience = 10;

PulseReading Computing(int64_t beats) { return {.beats = beats, .step = 3, .layer = 2, .activity = Activity::kBackward}; }
PulseReading Waiting(int64_t beats) {
  PulseReading r = Computing(beats);
  r.waiting = 1;
  return r;
}

// What `vigil` says in so many ticks, of which t calls hear(t) and reads own(t); the tick of the alarm, or -1.
template <class Hear, class Own>
std::pair<int64_t, Alarm> Watch(Vigil& vigil, int64_t ticks, const Hear& hear, const Own& own) {
  for (int64_t t = 0; t < ticks; ++t) {
    hear(t);
    if (const auto alarm = vigil.Tick(own(t))) return {t, *alarm};
  }
  return {-1, {}};
}

TEST(Vigil, RankThatComputesWithoutABeatIsStuck) {
  Vigil vigil(1, 2, kPatience);
  const auto hear = [&](int64_t t) { vigil.Hear(0, Waiting(t)); };
  const auto [tick, alarm] = Watch(vigil, 100, hear, [](int64_t) { return Computing(5); });
  EXPECT_EQ(tick, kPatience + 1);
  EXPECT_EQ(alarm.kind, Alarm::kStuck);
  EXPECT_EQ(alarm.rank, 1);
  EXPECT_EQ(alarm.last, Computing(5));
}

TEST(Vigil, SlowWorkAndLongReadingAreLegal) {
  Vigil slow(1, 2, kPatience);
  const auto hear = [&](int64_t t) { slow.Hear(0, Waiting(t)); };
  EXPECT_EQ(Watch(slow, 200, hear, [](int64_t t) { return Computing(t / kPatience); }).first, -1);
  Vigil reads(1, 2, kPatience);
  const auto first = [&](int64_t t) { reads.Hear(0, Waiting(t)); };
  EXPECT_EQ(Watch(reads, 200, first, [](int64_t) { return PulseReading{.activity = Activity::kReading}; }).first, -1);
}

TEST(Vigil, SilentRankIsNamedByTheFirst) {
  Vigil vigil(0, 3, kPatience);
  const auto hear = [&](int64_t t) {
    vigil.Hear(1, Computing(t));
    if (t < 20) vigil.Hear(2, Computing(t));
  };
  const auto [tick, alarm] = Watch(vigil, 100, hear, [](int64_t t) { return Computing(t); });
  EXPECT_EQ(tick, 19 + kPatience);
  EXPECT_EQ(alarm.kind, Alarm::kSilent);
  EXPECT_EQ(alarm.rank, 2);
  EXPECT_EQ(alarm.last, Computing(19));
}

TEST(Vigil, SilentFirstRankIsNamedByTheSecondThenByOthers) {
  Vigil second(1, 3, kPatience), third(2, 3, kPatience);
  const auto nothing = [](int64_t) {};
  const auto own = [](int64_t t) { return Computing(t); };
  const auto [tick, alarm] = Watch(second, 100, nothing, own);
  EXPECT_EQ(alarm.kind, Alarm::kSilent);
  EXPECT_EQ(alarm.rank, 0);
  EXPECT_GT(Watch(third, 100, nothing, own).first, tick);
}

TEST(Vigil, RanksThatAllWaitForEachOtherAreADeadlock) {
  Vigil vigil(0, 2, kPatience);
  const auto [tick, alarm] = Watch(
      vigil, 100, [&](int64_t t) { vigil.Hear(1, Waiting(std::min<int64_t>(t, 7))); }, [](int64_t) { return Waiting(4); });
  EXPECT_EQ(alarm.kind, Alarm::kDeadlock);
  EXPECT_EQ(tick, 7 + kPatience + 1);
}

TEST(Vigil, OneThatWritesWhileOthersWaitIsNone) {
  Vigil vigil(0, 2, kPatience);
  const auto hear = [&](int64_t) { vigil.Hear(1, PulseReading{.activity = Activity::kSaving}); };
  EXPECT_EQ(Watch(vigil, 100, hear, [](int64_t) { return Waiting(4); }).first, -1);
}

}  // namespace
}  // namespace fathom

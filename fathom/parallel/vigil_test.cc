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
// The rank makes no effort unless effort(t) says so.
template <class Hear, class Own, class Effort>
std::pair<int64_t, Alarm> Watch(Vigil& vigil, int64_t ticks, const Hear& hear, const Own& own, const Effort& effort) {
  for (int64_t t = 0; t < ticks; ++t) {
    hear(t);
    if (const auto alarm = vigil.Tick(own(t), effort(t))) return {t, *alarm};
  }
  return {-1, {}};
}
template <class Hear, class Own>
std::pair<int64_t, Alarm> Watch(Vigil& vigil, int64_t ticks, const Hear& hear, const Own& own) {
  return Watch(vigil, ticks, hear, own, [](int64_t) { return 0; });
}
int64_t Grows(int64_t t) { return t; }

TEST(Vigil, RankThatComputesWithoutABeatIsStuck) {
  Vigil vigil(1, 2, kPatience);
  const auto hear = [&](int64_t t) { vigil.Hear(0, Waiting(t)); };
  const auto [tick, alarm] = Watch(vigil, 100, hear, [](int64_t) { return Computing(5); });
  EXPECT_EQ(tick, kPatience + 1);
  EXPECT_EQ(alarm.kind, Alarm::kStuck);
  EXPECT_EQ(alarm.rank, 1);
  EXPECT_EQ(alarm.last, Computing(5));
}

// One that hears the first rank, and is at the same all the time.
std::pair<int64_t, Alarm> WatchOne(int64_t ticks, const PulseReading& at, int64_t (*effort)(int64_t)) {
  Vigil vigil(1, 2, kPatience);
  return Watch(
      vigil, ticks, [&](int64_t t) { vigil.Hear(0, Waiting(t)); }, [&](int64_t) { return at; }, effort);
}

TEST(Vigil, SlowWorkIsLegal) {
  Vigil slow(1, 2, kPatience);
  const auto hear = [&](int64_t t) { slow.Hear(0, Waiting(t)); };
  EXPECT_EQ(Watch(slow, 200, hear, [](int64_t t) { return Computing(t / kPatience); }).first, -1);
}

TEST(Vigil, ReadingAndSavingHaveToGetOnToo) {
  for (const Activity activity : {Activity::kStarting, Activity::kReading, Activity::kSaving}) {
    const auto [tick, alarm] = WatchOne(100, {.activity = activity}, [](int64_t) { return int64_t{0}; });
    EXPECT_EQ(tick, kPatience + 1);
    EXPECT_EQ(alarm.kind, Alarm::kStuck);
    EXPECT_EQ(alarm.ticks, kPatience);
    EXPECT_EQ(WatchOne(100 * kPatience, {.activity = activity}, Grows).first, -1);  // one thread's work without a loop
  }
}

TEST(Vigil, EffortWithoutABeatIsBorneForLongInAStep) {
  const auto [tick, alarm] = WatchOne(100 * kPatience, Computing(5), Grows);
  EXPECT_EQ(tick, Vigil::kLenience * kPatience + 1);
  EXPECT_EQ(alarm.kind, Alarm::kBusy);
}

TEST(Vigil, WhatGivesNoSignOfLifeIsBorneForLong) {
  const auto [tick, alarm] = WatchOne(100 * kPatience, {.activity = Activity::kSaving, .outside = 1}, [](int64_t) { return int64_t{0}; });
  EXPECT_EQ(tick, Vigil::kLenience * kPatience + 1);
  EXPECT_EQ(alarm.kind, Alarm::kStuck);
}

TEST(Vigil, OneThatFailsIsLeftToIt) {
  EXPECT_EQ(WatchOne(100, {.activity = Activity::kFailed}, [](int64_t) { return int64_t{0}; }).first, -1);
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
  const auto hear = [&](int64_t) { vigil.Hear(1, PulseReading{.activity = Activity::kSaving, .outside = 1}); };
  EXPECT_EQ(Watch(vigil, 100, hear, [](int64_t) { return Waiting(4); }).first, -1);
}

}  // namespace
}  // namespace fathom

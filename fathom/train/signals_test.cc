#include "fathom/train/signals.h"

#include <gtest/gtest.h>

#include <csignal>

namespace fathom {
namespace {

TEST(StopSignals, AreHandledOnAStackOfTheirOwn) {
  const StopSignals signals;
  struct sigaction action;
  stack_t stack;
  for (const int signal : {SIGINT, SIGTERM}) {
    ASSERT_EQ(sigaction(signal, nullptr, &action), 0);
    EXPECT_TRUE(action.sa_flags & SA_ONSTACK);
  }
  ASSERT_EQ(sigaltstack(nullptr, &stack), 0);
  EXPECT_FALSE(stack.ss_flags & SS_DISABLE);
  EXPECT_GE(stack.ss_size, 1u << 15);
}

TEST(StopSignals, TellWhichCameAndGiveThemBack) {
  struct sigaction action;
  {
    const StopSignals signals;
    EXPECT_EQ(signals.received(), 0);
    std::raise(SIGTERM);
    EXPECT_EQ(signals.received(), SIGTERM);
  }
  ASSERT_EQ(sigaction(SIGTERM, nullptr, &action), 0);
  EXPECT_EQ(action.sa_handler, SIG_DFL);
}

TEST(StopSignals, ABrokenPipeStopsOnceAndIsIgnoredThen) {
  const StopSignals signals;
  std::raise(SIGPIPE);
  std::raise(SIGPIPE);
  EXPECT_EQ(signals.received(), SIGPIPE);
}

}  // namespace
}  // namespace fathom

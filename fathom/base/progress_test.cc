#include "fathom/base/progress.h"

#include <gtest/gtest.h>

#include <vector>

#include "fathom/base/log.h"

namespace fathom {
namespace {

TEST(Progress, LogsALineNowAndThenWhereThereIsNoTerminal) {
  testing::internal::CaptureStderr();
  SetUpLogging("info");
  {
    Progress progress("training", "steps", 120000, 1, 20000);
    progress.Update(20000, "a note");
    progress.Update(60000);  // too soon for another line
    progress.Clear();
    progress.Finish();
  }
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_EQ(out.find("training 20000/120000 steps, 0 steps/s, a note\n"), 0u) << out;  // what an earlier run did counts for no rate
  EXPECT_EQ(out.find("60000"), std::string::npos) << out;
  EXPECT_NE(out.find("training 120000/120000 steps, "), std::string::npos) << out;
  EXPECT_EQ(out.find('\r'), std::string::npos);
}

TEST(Progress, IsSilentWhereTheLogIs) {
  testing::internal::CaptureStderr();
  SetUpLogging("error");
  Progress("converting", "GB", 2e9, 1e9).Update(1e9);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(TerminalLine, LeavesOutWhatDoesNotFit) {
  const std::vector<std::string> parts = {"step 3/10", "loss 2.5", "1m left"};
  EXPECT_EQ(JoinFitting(parts, 28), "step 3/10, loss 2.5, 1m left");
  EXPECT_EQ(JoinFitting(parts, 27), "step 3/10, loss 2.5");
  EXPECT_EQ(JoinFitting(parts, 10), "step 3/10");
  EXPECT_EQ(JoinFitting(parts, 4), "step");
  EXPECT_EQ(JoinFitting({}, 10), "");
}

}  // namespace
}  // namespace fathom

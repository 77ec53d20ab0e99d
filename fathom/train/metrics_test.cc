#include "fathom/train/metrics.h"

#include <gtest/gtest.h>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

TEST(DropStepsFrom, KeepsTheLinesOfTheStepsBefore) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  DropStepsFrom(path, 2);
  EXPECT_FALSE(std::filesystem::exists(path));
  const auto write = [&](int64_t step) {
    Scalars scalars{.step = step};
    scalars.Add("learning/loss", 1.5);
    OpenJsonlSink(path)->Write(scalars);
  };
  for (const int64_t step : {0, 1}) write(step);
  const std::string kept = ReadTextFile(path);
  DropStepsFrom(path, 2);
  EXPECT_EQ(ReadTextFile(path), kept);
  for (const int64_t step : {2, 10, 3}) write(step);
  WriteFileAtomically(path, ReadTextFile(path) + "{\"step\":1,\"lear");  // killed in the middle of a line
  DropStepsFrom(path, 2);
  EXPECT_EQ(ReadTextFile(path), kept);
}

TEST(DropStepsFrom, LeavesOtherFilesAlone) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "notes";
  WriteFileAtomically(path, "{\"step\":0,\"x\":1}\nmine\n");
  EXPECT_THROW(DropStepsFrom(path, 0), Error);
  DropStepsFrom(folder.path(), 0);  // no file
}

TEST(ConsoleLine, ShowsWhatIsTrained) {
  StepReport report;
  report.loss = report.lm_loss = 2;
  EXPECT_NE(ConsoleLine(0, report, {.seconds = 1}).find("lm_loss: 2.000, perplexity: 7.389"), std::string::npos);
  EXPECT_EQ(ConsoleLine(0, report, {.seconds = 1}).find("indexer"), std::string::npos);
  report.indexer_loss = 0.125;
  report.indexer_kl = 0.5;
  const std::string both = ConsoleLine(0, report, {.seconds = 1});
  EXPECT_NE(both.find("perplexity: 7.389, indexer_loss: 0.125, indexer_kl: 0.5"), std::string::npos) << both;
  report.trains_lm = false;  // the indexers' warm-up
  report.lm_loss = 0;
  const std::string warm_up = ConsoleLine(0, report, {.seconds = 1});
  EXPECT_NE(warm_up.find("indexer_loss: 0.125"), std::string::npos) << warm_up;
  EXPECT_EQ(warm_up.find("perplexity"), std::string::npos) << warm_up;
  for (const auto& [name, value] : StepScalars(0, report, {.seconds = 1}, 0).values) EXPECT_NE(name, "learning/perplexity");
}

}  // namespace
}  // namespace fathom

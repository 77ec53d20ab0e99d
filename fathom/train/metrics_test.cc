#include "fathom/train/metrics.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace fathom

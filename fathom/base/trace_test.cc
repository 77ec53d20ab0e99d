#include "fathom/base/trace.h"

#include <gtest/gtest.h>

#include "fathom/base/file.h"
#include "fathom/base/json.h"
#include "fathom/base/log.h"
#include "fathom/base/threads.h"
#include "fathom/base/trace_window.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

void Work() {
  TraceSlice slice("product");
  if (slice.recorded()) slice.AddWork(3e9, 16);
}

void LayerStep(int64_t layer) {
  const TraceSlice of_layer = TraceSlice::OfLayer(layer);
  Work();
}

TEST(Trace, RecordsWhileAScopeLives) {
  Trace trace;
  Work();
  {
    const TraceScope scope(trace);
    const TraceSlice step("step", 7);
    LayerStep(3);
    Work();
  }
  Work();
  ASSERT_EQ(trace.slices().size(), 4u);
  const auto& [step, layer, inner, outer] = std::tie(trace.slices()[0], trace.slices()[1], trace.slices()[2], trace.slices()[3]);
  EXPECT_EQ(layer.layer, 3);
  EXPECT_EQ(inner.layer, 3);
  EXPECT_EQ(outer.layer, -1);
  EXPECT_EQ(inner.flops, 3e9);
  EXPECT_TRUE(step.begin <= layer.begin && layer.begin <= inner.begin && inner.end <= layer.end && layer.end <= outer.begin &&
              outer.end <= step.end);
  EXPECT_EQ(step.inside, (layer.end - layer.begin) + (outer.end - outer.begin));
}

TEST(Trace, ThreadsHaveTheSliceThatTheyWorkAt) {
  Trace trace;
  const TraceScope scope(trace);
  {
    const TraceSlice slice("product");
    TraceWorkers workers(3);
    for (const int thread : {0, 2, 2}) workers.Run(thread, [] {});
  }
  ASSERT_EQ(trace.slices().size(), 2u);
  EXPECT_STREQ(trace.slices()[1].name, "product");
  EXPECT_EQ(trace.slices()[1].thread, 2);
}

TEST(Trace, APlanSaysHowLoopsAreDivided) {
  Trace trace;
  const PlanScope plan(16);
  const TraceScope scope(trace);
  const auto planned = [&](const auto& loop) {
    {
      const TraceSlice slice("kernel");
      loop();
    }
    const Trace::Slice& last = trace.slices().back();
    return std::pair(last.jobs, last.largest_over_mean);
  };
  const auto none = [](int64_t, auto) { FAIL() << "a plan runs nothing"; };
  EXPECT_EQ(planned([&] { ParallelWorkerJobs(40, none); }), std::pair(int64_t{40}, 3 * 16 / 40.0));
  EXPECT_EQ(planned([&] { ParallelWorkerJobs(4, none); }), std::pair(int64_t{4}, 4.0));
  EXPECT_EQ(planned([&] { ParallelRanges(1000, 500, none); }), std::pair(int64_t{2}, 8.0));
  EXPECT_EQ(planned([&] { ParallelRanges(1600, 1, none); }), std::pair(int64_t{1600}, 1.0));
}

TEST(TraceWindow, WritesItsStepsForAViewer) {
  const TemporaryFolder folder;
  testing::internal::CaptureStderr();
  SetUpLogging("info");
  TraceWindow window({.folder = folder.path() / "trace", .first = 2, .count = 2});
  for (int64_t step = 0; step < 6; ++step) {
    window.Begin(step);
    LayerStep(step);
  }
  window.End();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("traced steps 2 to 3"), std::string::npos) << log;
  EXPECT_NE(log.find("product"), std::string::npos) << log;
  const Json events = ParseJson(ReadTextFile(folder.path() / "trace" / "steps_2-3.json"), "trace")["traceEvents"];
  ASSERT_EQ(events.size(), 7u);  // the process, and of two steps the step, its layer and the layer's product
  EXPECT_EQ(events[1]["name"], "step 2");
  EXPECT_EQ(events[6]["name"], "product");
  EXPECT_EQ(events[6]["ph"], "X");
  EXPECT_EQ(events[6]["args"]["flops"], 3000000000);
  EXPECT_EQ(events[6]["args"]["bytes"], 16);
  EXPECT_EQ(events[6]["args"]["layer"], 3);
  EXPECT_GE(events[6]["ts"].get<double>(), events[5]["ts"].get<double>());
}

TEST(TraceWindow, SaysThatNothingWasTraced) {
  const TemporaryFolder folder;
  testing::internal::CaptureStderr();
  SetUpLogging("info");
  TraceWindow window({.folder = folder.path() / "trace", .first = 2, .count = 2});
  window.Begin(0);
  window.End();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("no step was traced"), std::string::npos) << log;
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "trace"));
}

}  // namespace
}  // namespace fathom

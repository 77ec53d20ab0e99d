#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "fathom/base/error.h"
#include "fathom/report/bitmap.h"
#include "fathom/report/chart.h"
#include "fathom/report/page.h"
#include "fathom/report/run_record.h"
#include "fathom/testing/folder.h"

namespace fathom {
namespace {

void WriteText(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

std::string Rows(int steps) {
  std::string rows;
  for (int i = 0; i < steps; ++i) rows += "{\"step\":" + std::to_string(i) + ",\"learning/loss\":" + std::to_string(5.0 - 0.01 * i) + "}\n";
  return rows;
}

int Count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

// A page holds no address that a browser would ask a network for.
void ExpectSelfContained(const std::string& page) {
  EXPECT_EQ(Count(page, "http"), 1) << "only SVG's own name space";
  EXPECT_EQ(Count(page, "<link"), 0);
  EXPECT_EQ(Count(page, "src='") - Count(page, "src='data:"), 0);
}

TEST(RunRecord, ReadsWhatAKilledRunLeft) {
  const TemporaryFolder folder;
  WriteText(folder.path() / "r/metrics/metrics.jsonl", Rows(3) + "{\"step\":3,\"learning/lo");
  const RunRecord run = ReadRun(folder.path() / "r");
  EXPECT_EQ(run.name, "r");
  EXPECT_EQ(run.last_step, 2);
  EXPECT_EQ(run.unread_lines, 1);
  ASSERT_EQ(run.Of("learning/loss").size(), 3U);
  EXPECT_EQ(run.Of("learning/loss")[2], std::pair(int64_t{2}, 4.98));
  EXPECT_TRUE(run.Of("eval/avg_loss").empty());
}

TEST(RunRecord, WhatIsNoRunIsSaid) {
  const TemporaryFolder folder;
  EXPECT_THROW(ReadRun(folder.path()), Error);
  WriteText(folder.path() / "metrics/metrics.jsonl", "");
  EXPECT_THROW(ReadRun(folder.path()), Error);
}

TEST(Chart, LongLinesAreABandOfFewPoints) {
  Series points;
  for (int64_t i = 0; i < 100000; ++i) points.emplace_back(i, i % 2 == 0 ? 1.0 : 3.0);
  const std::string svg = DrawChart({"Loss", "", {{"last", 0, false, points}}});
  EXPECT_LT(svg.size(), 20000U);
  EXPECT_EQ(Count(svg, "class='band f0'"), 1);
}

TEST(Chart, OneStepIsADotAndNaNIsMarked) {
  const std::string one = DrawChart({"Loss", "", {{"last", 0, false, {{7, 2.5}}}}});
  EXPECT_EQ(Count(one, "<circle"), 1);
  EXPECT_EQ(Count(one, "<path class='line"), 0);
  const std::string broken =
      DrawChart({"Loss", "", {{"last", 0, false, {{0, 2.5}, {1, 2.0}, {2, std::numeric_limits<double>::quiet_NaN()}}}}});
  EXPECT_EQ(Count(broken, "class='broken'"), 1);
  EXPECT_EQ(Count(broken, "nan "), 0);
  EXPECT_EQ(DrawChart({"Loss", "", {{"last", 0, false, {}}}}), "");
}

TEST(Bitmap, HoldsEveryPixel) {
  // 3 x 2 pixels: rows of 4 bytes behind 14 + 40 + 1024 bytes, in base64.
  const std::vector<uint8_t> pixels = {0, 128, 255, 1, 2, 3};
  const std::string url = BitmapUrl(pixels, 3, 2), start = "data:image/bmp;base64,";
  ASSERT_TRUE(url.starts_with(start + "Qk")) << url.substr(0, 40);
  EXPECT_EQ(url.size() - start.size(), (14 + 40 + 1024 + 8) / 3 * 4U);
  EXPECT_TRUE(url.ends_with("AAECAwAAgP8A")) << "the lower row first, each padded";
}

TEST(ReportPage, OneRunThatCrashed) {
  const TemporaryFolder folder;
  WriteText(folder.path() / "r/metrics/metrics.jsonl", Rows(40));
  WriteText(folder.path() / "r/metrics/run.json",
            R"({"steps": 100, "ended": {"code": 1, "why": "step 40: the loss is nan <b>"}, "memory": [{"what": "weights", "size": "1 MB"}],
                "flags": {"dtype": {"value": "float32", "source": "command line"}}})");
  WriteText(folder.path() / "r/metrics/experts.jsonl",
            "{\"step\":0,\"counts\":{\"1\":[4,0,0,0]}}\n{\"step\":9,\"counts\":{\"1\":[1,1,1,1]}}\n");
  const RunRecord run = ReadRun(folder.path() / "r");
  const std::string page = ReportPage({&run, 1});
  ExpectSelfContained(page);
  for (const char* text : {"40 of 100", "step 40: the loss is nan &lt;b&gt;", "class='bad'", "weights", "command line",
                           "layer 1: 4 experts, steps 0 to 9", "at most 4.00 x"}) {
    EXPECT_EQ(Count(page, text) > 0, true) << text;
  }
}

TEST(ReportPage, ShowsWhatTheModelWroteOnItsWay) {
  const TemporaryFolder folder;
  WriteText(folder.path() / "r/metrics/metrics.jsonl", Rows(40));
  std::string samples;
  for (int step = 0; step < 40; ++step)
    samples += fmt::format("{{\"step\":{0},\"prompt\":\"a < b\",\"text\":\"text {0} & more\"}}\n", step);
  WriteText(folder.path() / "r/metrics/samples.jsonl", samples + "{\"step\":40,\"te");
  const RunRecord run = ReadRun(folder.path() / "r");
  ASSERT_EQ(run.samples.size(), 40U);
  const std::string page = ReportPage({&run, 1});
  ExpectSelfContained(page);
  EXPECT_EQ(Count(page, "after \"a &lt; b\""), 1);
  EXPECT_EQ(Count(page, "&amp; more</div>"), 12);
  EXPECT_EQ(Count(page, ">text 0 &amp;") + Count(page, ">text 39 &amp;"), 2);
}

TEST(ReportPage, SeveralRunsShareChartsUnderNamesOfTheirOwn) {
  const TemporaryFolder folder;
  WriteText(folder.path() / "a/r/metrics/metrics.jsonl", Rows(4));
  WriteText(folder.path() / "b/r/metrics/metrics.jsonl", Rows(1));
  const std::vector<RunRecord> runs = {ReadRun(folder.path() / "a/r"), ReadRun(folder.path() / "b/r")};
  const std::string page = ReportPage(runs);
  ExpectSelfContained(page);
  EXPECT_GT(Count(page, "r (2)"), 1);
  EXPECT_EQ(Count(page, "<h3>Loss"), 1);
}

}  // namespace
}  // namespace fathom

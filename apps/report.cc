// fathom report: one page of one or several runs.
#include <fmt/format.h>

#include <cmath>

#include "apps/command.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/log.h"
#include "fathom/report/page.h"
#include "fathom/report/run_record.h"

namespace fathom {
namespace {

// What the page begins with, of each run.
Json RunsJson(const std::vector<RunRecord>& runs) {
  Json all = Json::array();
  for (const RunRecord& run : runs) {
    Json last = Json::object();
    for (const auto& [name, series] : run.scalars) {
      if (!series.empty() && std::isfinite(series.back().second)) last[name] = series.back().second;
    }
    all.push_back({{"name", run.name}, {"last_step", run.last_step}, {"unread_lines", run.unread_lines}, {"last", last}});
  }
  return all;
}

int RunReport(const RunConfig& config) {
  if (config.words().empty()) Throw(ErrorCode::kUsage, "report: no run given; fathom report <base_output_directory>/<run_name>...");
  std::vector<RunRecord> runs;
  for (const std::string& folder : config.words()) runs.push_back(ReadRun(folder));
  const std::string output = config.String("output").empty() ? "report.html" : config.String("output");
  WriteOutput(output, ReportPage(runs));
  if (!config.String("json").empty()) WriteOutput(config.String("json"), JsonText({{"output", output}, {"runs", RunsJson(runs)}}));
  spdlog::info("{}: {} run{}", output, runs.size(), runs.size() == 1 ? "" : "s");
  return 0;
}

}  // namespace

Command ReportCommand() {
  return {"report", "one HTML page of one or several runs: losses, speed, experts, flags", {"output"}, &RunReport, "RUN..."};
}

}  // namespace fathom

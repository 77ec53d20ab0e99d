// fathom report: one page of one or several runs.
#include <fmt/format.h>

#include "apps/command.h"
#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/log.h"
#include "fathom/report/page.h"
#include "fathom/report/run_record.h"

namespace fathom {
namespace {

int RunReport(const RunConfig& config) {
  if (config.words().empty()) Throw(ErrorCode::kUsage, "report: no run given; fathom report <base_output_directory>/<run_name>...");
  std::vector<RunRecord> runs;
  for (const std::string& folder : config.words()) runs.push_back(ReadRun(folder));
  const std::string output = config.String("output").empty() ? "report.html" : config.String("output");
  WriteOutput(output, ReportPage(runs));
  spdlog::info("{}: {} run{}", output, runs.size(), runs.size() == 1 ? "" : "s");
  return 0;
}

}  // namespace

Command ReportCommand() {
  return {"report", "one HTML page of one or several runs: losses, speed, experts, flags", {"output"}, &RunReport, "RUN..."};
}

}  // namespace fathom

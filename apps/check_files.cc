#include "fathom/checkpoint/check/check_files.h"

#include <fmt/format.h>

#include <algorithm>

#include "apps/command.h"
#include "fathom/base/clock.h"
#include "fathom/base/file.h"
#include "fathom/base/progress.h"
#include "fathom/config/model_from_flags.h"
#include "fathom/machine/limits.h"

namespace fathom {
namespace {

constexpr int64_t kMostLines = 100;  // json= has them all

const char* Word(Severity severity) {
  switch (severity) {
    case Severity::kNote:
      return "note";
    case Severity::kFault:
      return "fault";
    case Severity::kMalformed:
      return "malformed";
  }
  return "";
}

const char* Word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kSameBits:
      return "same bits";
    case Verdict::kRounded:
      return "rounded";
    case Verdict::kDifferent:
      return "different";
    case Verdict::kOnlyInFirst:
      return "only in input";
    case Verdict::kOnlyInSecond:
      return "only in against";
  }
  return "";
}

void PrintFindings(const FilesReport& report) {
  for (int64_t i = 0; i < std::min<int64_t>(std::ssize(report.findings), kMostLines); ++i) {
    const Finding& finding = report.findings[static_cast<size_t>(i)];
    fmt::print("{}: {}\n", Word(finding.severity), finding.text);
  }
  if (std::ssize(report.findings) > kMostLines)
    fmt::print("... and {} more findings (json=FILE has them all)\n", std::ssize(report.findings) - kMostLines);
}

// Those that have other bits; what is no tensor of both or not the same one is among the findings.
void PrintDifferences(const FilesReport& report) {
  int64_t lines = 0;
  for (const TensorComparison& c : report.comparisons) {
    if (c.verdict != Verdict::kRounded || ++lines > kMostLines) continue;
    fmt::print("rounded: tensor {}: {} against {}: max abs {:.6g}, cosine {:.9f}\n", c.name, c.first, c.second, c.difference.max_abs,
               c.difference.Cosine());
  }
  if (lines > kMostLines) fmt::print("... and {} more rounded tensors (json=FILE has them all)\n", lines - kMostLines);
}

void PrintComparison(const FilesReport& report) {
  int64_t same = 0, rounded = 0;
  double max_abs = 0, cosine = 1;
  for (const TensorComparison& c : report.comparisons) {
    same += c.verdict == Verdict::kSameBits;
    rounded += c.verdict == Verdict::kRounded;
    max_abs = std::max(max_abs, c.difference.max_abs);
    if (c.verdict == Verdict::kRounded || c.verdict == Verdict::kDifferent) cosine = std::min(cosine, c.difference.Cosine());
  }
  PrintDifferences(report);
  fmt::print("against: {} tensors, {} with the same bits, {} in another format (largest difference {:.6g}, lowest cosine {:.9f})\n",
             report.comparisons.size(), same, rounded, max_abs, cosine);
}

void PrintSummary(const FilesReport& report, const std::string& manifest, double seconds) {
  fmt::print("{} tensors, {}, {:.1f} s: ", report.tensors, FormatBytes(static_cast<double>(report.bytes)), seconds);
  const int64_t faults = report.Count(Severity::kFault), malformed = report.Count(Severity::kMalformed);
  if (faults + malformed == 0) {
    fmt::print("sound\n");
  } else {
    fmt::print("{} malformed, {} faults\n", malformed, faults);
  }
  if (report.manifest_written) fmt::print("manifest written: {}\n", manifest);
}

Json ToJson(const FilesReport& report) {
  Json findings = Json::array(), comparisons = Json::array();
  for (const Finding& f : report.findings) findings.push_back({{"severity", Word(f.severity)}, {"text", f.text}});
  for (const TensorComparison& c : report.comparisons) {
    comparisons.push_back({{"name", c.name},
                           {"verdict", Word(c.verdict)},
                           {"input", c.first},
                           {"against", c.second},
                           {"max_abs", c.difference.max_abs},
                           {"cosine", c.verdict == Verdict::kSameBits ? 1.0 : c.difference.Cosine()}});
  }
  return {{"sound", report.ExitCode() == 0},
          {"exit_code", report.ExitCode()},
          {"tensors", report.tensors},
          {"bytes", report.bytes},
          {"findings", std::move(findings)},
          {"against", std::move(comparisons)},
          {"peak_rss_bytes", PeakResidentBytes()}};
}

int Run(const RunConfig& config) {
  const auto& inputs = config.Strings("input");
  if (inputs.size() != 1) Throw(ErrorCode::kUsage, "check files needs one input=DIR (a Hugging Face folder or an Orbax checkpoint)");
  const Stopwatch clock;
  CheckFilesOptions options = {inputs[0], config.String("manifest"), config.String("against"), config.Int("memory_limit")};
  options.model = DescribedModel(config);
  options.ignore_config_keys = config.Strings("ignore_config_keys");
  const FilesReport report = CheckFiles(options);
  const std::string& json = config.String("json");
  if (!json.empty()) WriteOutput(json, JsonText(ToJson(report)));
  if (json == "-" || json == "/dev/stdout") return report.ExitCode();
  PrintFindings(report);
  if (!report.comparisons.empty()) PrintComparison(report);
  PrintSummary(report, config.String("manifest"), clock.Seconds());
  return report.ExitCode();
}

}  // namespace

Command CheckFilesCommand() {
  return {.name = "check files",
          .summary = "a checkpoint's integrity: files, index, shapes against the config, NaN, scales, hashes; against another one",
          .flags = WithModelFlags({"input", "ignore_config_keys", "manifest", "against", "memory_limit"}),
          .run = Run};
}

}  // namespace fathom

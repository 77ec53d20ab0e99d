#include "apps/check_outputs.h"

#include <filesystem>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/train/options.h"

namespace fathom {
namespace {

// A run makes its own folder before it opens files there.
bool IsInOwnRun(const std::string& command, const RunConfig& config, const std::string& path) {
  if (command != "train" && command != "sft") return false;
  const auto run = ReadTrainOptions(config).run_dir.lexically_normal();
  const auto inside = std::filesystem::path(path).lexically_normal().lexically_relative(run);
  return !inside.empty() && *inside.begin() != "..";
}

}  // namespace

void CheckOutputs(const std::string& command, const std::set<std::string>& read, const RunConfig& config) {
  const bool writes = command != "config" && command != "plan";
  for (const std::string flag : {"json", "samples_output", "prompts_output", "output_logits_path", "metrics_file"}) {
    const std::string path = config.String(flag);
    const bool wanted = flag == "json" || (writes && read.contains(flag));
    if (wanted && !path.empty() && !IsInOwnRun(command, config, path)) CheckOutput(flag, path);
  }
  if (writes && read.contains("metrics_file") && config.String("metrics_file") == "-")
    Throw(ErrorCode::kUsage, "metrics_file=-: standard output has the run's own lines; name a file, or /dev/stderr");
}

}  // namespace fathom

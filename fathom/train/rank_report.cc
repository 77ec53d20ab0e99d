#include "fathom/train/rank_report.h"

#include <algorithm>
#include <numeric>

#include "fathom/base/error.h"
#include "fathom/base/log_file.h"

namespace fathom {

SlowestRank FindSlowest(const Mesh& mesh, double seconds) {
  std::vector<double> all(static_cast<size_t>(mesh.world().size()));
  all[static_cast<size_t>(mesh.world().rank())] = seconds;
  mesh.world().AllSum(std::span(all));
  const auto slowest = std::ranges::max_element(all);
  return {static_cast<int>(slowest - all.begin()), *slowest,
          std::accumulate(all.begin(), all.end(), 0.0) / static_cast<double>(all.size())};
}

void LogPerRank(const RunConfig& config, const TrainOptions& options) {
  if (options.mesh.world().size() == 1) return;
  const std::filesystem::path logs = options.run_dir / "logs";
  std::error_code failed;
  std::filesystem::create_directories(logs, failed);
  if (failed) Throw(ErrorCode::kResource, "{}: cannot create: {}", logs.string(), failed.message());
  LogToFile(logs / fmt::format("rank-{}.log", options.mesh.world().rank()), config.String("log_level"), !options.mesh.is_first());
}

}  // namespace fathom

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

void ReadByRank::Note(const char* name, int64_t mine) {
  const auto count = static_cast<size_t>(mesh_.world().size());
  if (count == 1) return;
  std::vector<int64_t> all(count);
  all[static_cast<size_t>(mesh_.world().rank())] = mine;
  mesh_.world().AllSum(std::span(all));
  for (size_t r = 0; r < count; ++r) {
    ranks_[r]["rank"] = r;
    ranks_[r][name] = all[r];
  }
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

#include "fathom/config/profiler.h"

#include "fathom/base/log.h"

namespace fathom {

bool WantsTrace(const RunConfig& config) {
  const std::string& profiler = config.String("profiler");
  if (profiler.empty() || profiler == "trace") return !profiler.empty();
  spdlog::info("accepted, no effect here: profiler={}; profiler=trace shows where this program's time goes", profiler);
  return false;
}

}  // namespace fathom

#include "fathom/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>

#include "fathom/base/error.h"

namespace fathom {

void SetUpLogging(const std::string& level) {
  const auto parsed = spdlog::level::from_str(level);
  if (parsed == spdlog::level::off && level != "off") {
    Throw(ErrorCode::kUsage, "log_level={}: allowed are debug, info, warning, error, off", level);
  }
  auto logger = std::make_shared<spdlog::logger>("fathom", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%v");
  logger->set_level(parsed);
  spdlog::set_default_logger(logger);
}

}  // namespace fathom

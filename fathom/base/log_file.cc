#include "fathom/base/log_file.h"

#include <spdlog/sinks/basic_file_sink.h>

#include "fathom/base/error.h"
#include "fathom/base/log.h"

namespace fathom {

void LogToFile(const std::filesystem::path& path, const std::string& level, bool alone) {
  try {
    const auto file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string());
    file->set_pattern("%Y-%m-%d %H:%M:%S.%e %v");
    if (alone) SetUpLogging(level);
    auto& sinks = spdlog::default_logger()->sinks();
    if (alone) sinks.clear();
    sinks.push_back(file);
    spdlog::default_logger()->flush_on(spdlog::level::debug);
  } catch (const spdlog::spdlog_ex& e) {
    Throw(ErrorCode::kResource, "{}: cannot write: {}", path.string(), e.what());
  }
}

}  // namespace fathom

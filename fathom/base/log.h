// One logging sink for the whole program: stderr, plain lines. Libraries below apps log, they never print.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace fathom {

// level: debug|info|warning|error|off. Throws Error(kUsage) on another word. Call once, at start.
void SetUpLogging(const std::string& level);

}  // namespace fathom

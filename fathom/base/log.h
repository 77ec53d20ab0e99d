// One logging sink for the whole program: stderr, plain lines. Libraries below apps log, they never print.
#pragma once

#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>

namespace fathom {

// level: debug|info|warning|error|off. Throws Error(kUsage) on another word. Call once, at start.
void SetUpLogging(const std::string& level);

// While one lives, only errors are logged: for work that will be done again and say the same.
class QuietLog {
 public:
  QuietLog() : level_(spdlog::get_level()) { spdlog::set_level(std::max(level_, spdlog::level::err)); }
  ~QuietLog() { spdlog::set_level(level_); }
  QuietLog(const QuietLog&) = delete;
  QuietLog& operator=(const QuietLog&) = delete;

 private:
  spdlog::level::level_enum level_;
};

}  // namespace fathom

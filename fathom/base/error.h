// Errors of the outside world (Error) and bugs of our own (FATHOM_CHECK). docs/architecture.md, "Errors".
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace fathom {

// What went wrong, and at the same time the exit code of the process (README.md).
enum class ErrorCode : int {
  kFailed = 1,    // the work ran and failed: a check missed its bar, a loss became NaN
  kUsage = 2,     // bad flag or config
  kInput = 3,     // bad input file
  kResource = 4,  // out of memory, disk, processes
};

// The text with control characters as spaces and bytes that are not UTF-8 as '?': names from broken files can't break a line or a JSON
// report.
std::string OneLine(std::string_view text);

// One line for a human: what, where, what to do next. Thrown anywhere, caught once per command or per request.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(OneLine(message)), code_(code) {}
  ErrorCode code() const { return code_; }
  int exit_code() const { return static_cast<int>(code_); }

 private:
  ErrorCode code_;
};

template <class... Args>
[[noreturn]] void Throw(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

// Prints file, line and message to stderr and aborts: for our own bugs only, never for input.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace fathom

// Always on, also in release: for edges (shapes, dtypes, ranges), not for inner loops.
#define FATHOM_CHECK(condition, ...)                                                        \
  do {                                                                                      \
    if (!(condition)) [[unlikely]] {                                                        \
      ::fathom::CheckFailed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
    }                                                                                       \
  } while (false)

#include "fathom/base/terminal_line.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "fathom/base/env.h"

namespace fathom {
namespace {

constexpr std::string_view kSeparator = ", ";
constexpr size_t kUsualWidth = 80;  // where the terminal does not say

bool CanGoBack() {
  const std::string kind = GetEnv("TERM").value_or("");
  return isatty(STDERR_FILENO) != 0 && !kind.empty() && kind != "dumb";
}

size_t Width() {
  winsize window{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_col == 0) return kUsualWidth;
  return window.ws_col;
}

}  // namespace

std::string JoinFitting(std::span<const std::string> parts, size_t width) {
  if (parts.empty()) return "";
  std::string line = parts[0].substr(0, width);
  for (const std::string& part : parts.subspan(1)) {
    if (line.size() + kSeparator.size() + part.size() > width) break;
    line.append(kSeparator).append(part);
  }
  return line;
}

TerminalLine::TerminalLine() : can_draw_(CanGoBack()) {}

TerminalLine::~TerminalLine() {
  if (drawn_) std::fputc('\n', stderr);
}

// The last column stays free: a full line makes some terminals go to the next.
void TerminalLine::Draw(std::span<const std::string> parts) {
  if (!can_draw_) return;
  std::fprintf(stderr, "\r%s\033[K", JoinFitting(parts, Width() - 1).c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void TerminalLine::Clear() {
  if (drawn_) std::fputs("\r\033[K", stderr);
  drawn_ = false;
}

}  // namespace fathom

#include "fathom/base/terminal_line.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "fathom/base/env.h"
#include "fathom/base/log.h"

namespace fathom {
namespace {

constexpr std::string_view kSeparator = ", ";
constexpr size_t kUsualWidth = 80;  // where the terminal does not say

bool CanGoBack() {
  const std::string kind = GetEnv("TERM").value_or("");
  return !kind.empty() && kind != "dumb";
}

// The stderr of the launcher that this process is a child of, if that is a terminal; -1: it is none.
int OpenLaunchersTerminal() {
  constexpr std::string_view kLaunchers[] = {"mpirun", "orterun", "prterun", "mpiexec"};
  const std::string parent = fmt::format("/proc/{}/", ::getppid());
  std::string name;
  std::getline(std::ifstream(parent + "comm"), name);
  if (std::ranges::count(kLaunchers, name) == 0) return -1;
  const int fd = ::open((parent + "fd/2").c_str(), O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0 && ::isatty(fd) != 0) return fd;
  if (fd >= 0) ::close(fd);
  return -1;
}

size_t Width(std::FILE* terminal) {
  winsize window{};
  if (::ioctl(::fileno(terminal), TIOCGWINSZ, &window) != 0 || window.ws_col == 0) return kUsualWidth;
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

std::unique_ptr<std::FILE, TerminalLine::Close> TerminalLine::Terminal() {
  if (!CanGoBack() || spdlog::get_level() == spdlog::level::off) return nullptr;
  std::unique_ptr<std::FILE, Close> terminal;
  if (::isatty(STDERR_FILENO) != 0) {
    terminal.reset(stderr);
  } else if (const int fd = OpenLaunchersTerminal(); fd >= 0) {
    terminal.reset(::fdopen(fd, "w"));
  }
  return terminal;
}

TerminalLine::TerminalLine() : terminal_(Terminal()) {}

TerminalLine::~TerminalLine() {
  if (drawn_) std::fputc('\n', terminal_.get());
}

// The last column stays free: a full line makes some terminals go to the next.
void TerminalLine::Draw(std::span<const std::string> parts) {
  if (!can_draw()) return;
  std::fprintf(terminal_.get(), "\r%s\033[K", JoinFitting(parts, Width(terminal_.get()) - 1).c_str());
  std::fflush(terminal_.get());
  drawn_ = true;
}

void TerminalLine::Clear() {
  if (drawn_) {
    std::fputs("\r\033[K", terminal_.get());
    std::fflush(terminal_.get());
  }
  drawn_ = false;
}

}  // namespace fathom

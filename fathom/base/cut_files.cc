#include "fathom/base/cut_files.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "fathom/base/error.h"
#include "fathom/base/signal_stack.h"
#include "fathom/base/threads.h"

namespace fathom {
namespace {

// Everything here but ReportCutFiles runs in the handler: no allocation, no locks.

// Several threads may read the same file; the first one reports. A handler can reach nothing but a global.
std::atomic_flag g_reporting = ATOMIC_FLAG_INIT;

// Text of a fixed size at most; what does not fit is dropped.
class Line {
 public:
  void Clear() { size_ = 0; }
  void Add(std::string_view text) {
    text = text.substr(0, sizeof(bytes_) - size_);
    std::memcpy(bytes_ + size_, text.data(), text.size());
    size_ += text.size();
  }
  std::string_view view() const { return {bytes_, size_}; }

 private:
  char bytes_[5000];  // PATH_MAX and some words
  size_t size_ = 0;
};

// The next line without its end; false if there is none.
bool ReadLine(int fd, Line& line) {
  line.Clear();
  for (char c; ::read(fd, &c, 1) == 1;) {
    if (c == '\n') return true;
    line.Add({&c, 1});
  }
  return false;
}

// Whether the line of /proc/self/maps ("begin-end perms offset device inode path") is of a file's mapping that holds the address.
bool Holds(std::string_view line, uintptr_t address) {
  uintptr_t begin = 0, end = 0;
  const char* const stop = line.data() + line.size();
  const char* const dash = std::from_chars(line.data(), stop, begin, 16).ptr;
  if (dash == stop) return false;
  std::from_chars(dash + 1, stop, end, 16);
  return begin <= address && address < end && line.find('/') != line.npos;
}

// The line of the file's mapping that holds the address; false: it lies in none.
bool FindMapping(uintptr_t address, Line& line) {
  const int maps = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (maps < 0) return false;
  bool found = false;
  while (!found && ReadLine(maps, line)) found = Holds(line.view(), address);
  ::close(maps);
  return found;
}

void Handle(int signal, siginfo_t* info, void*) {
  Line mapping, message;
  if (info->si_code != BUS_ADRERR || !FindMapping(reinterpret_cast<uintptr_t>(info->si_addr), mapping)) {
    std::signal(signal, SIG_DFL);  // something else; it is held back until the handler returns
    std::raise(signal);
    return;
  }
  while (g_reporting.test_and_set()) ::pause();
  message.Add("fathom: error: ");
  message.Add(mapping.view().substr(mapping.view().find('/')));
  message.Add(": cut short, or unreadable, while it was being read\n");
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, message.view().data(), message.view().size());
  ::_exit(static_cast<int>(ErrorCode::kInput));
}

}  // namespace

void ReportCutFiles() {
  UseSignalStack();
#pragma omp parallel num_threads(NumThreads())
  UseSignalStack();
  struct sigaction action = {};
  action.sa_sigaction = Handle;
  action.sa_flags = SA_ONSTACK | SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace fathom

#include "fathom/base/scratch_folder.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <system_error>

#include "fathom/base/env.h"
#include "fathom/base/error.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

fs::path NewFolder() {
  std::error_code failed;
  const fs::path parent = fs::temp_directory_path(failed);
  if (failed) Throw(ErrorCode::kResource, "TMPDIR={}: no folder for temporary files", GetEnv("TMPDIR").value_or(""));
  std::string name = (parent / "fathom-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr)
    Throw(ErrorCode::kResource, "{}: cannot create a folder for temporary files (TMPDIR): {}", name, std::strerror(errno));
  return name;
}

// The child: keeps nothing open but the pipe, so that nobody waits for it, and outlives what ends its parent's group.
[[noreturn]] void RemoveWhenAlone(const fs::path& folder, int pipe) {
  ::setsid();
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, SIG_IGN);
  ::dup2(pipe, 0);
  ::close_range(1, ~0U, 0);
  char none;
  while (::read(0, &none, 1) < 0 && errno == EINTR) {
  }
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  ::_exit(0);
}

}  // namespace

ScratchFolder::ScratchFolder() : path_(NewFolder()) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) == 0) remover_ = ::fork();
  if (remover_ == 0) {
    ::close(ends[1]);
    RemoveWhenAlone(path_, ends[0]);
  }
  const int error = errno;
  ::close(ends[0]);
  alive_ = ends[1];
  if (remover_ > 0) return;
  ::close(alive_);
  fs::remove(path_);
  Throw(ErrorCode::kResource, "cannot start a process: {}", std::strerror(error));
}

ScratchFolder::~ScratchFolder() {
  ::close(alive_);
  while (::waitpid(remover_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace fathom

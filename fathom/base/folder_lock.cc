#include "fathom/base/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fathom/base/system_error.h"

namespace fathom {

FolderLock::FolderLock(const std::filesystem::path& folder, const std::string& shown)
    : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) {
  const bool locked = fd_ >= 0 && ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
  if (locked && IsAt(folder)) return;
  const int cause = locked ? EWOULDBLOCK : errno;  // locked: another one has just removed it
  if (fd_ >= 0) ::close(fd_);
  Throw(CodeOfErrno(cause), "{}: cannot start writing: {}", shown,
        cause == EWOULDBLOCK ? "another process is writing it" : std::strerror(cause));
}

FolderLock::~FolderLock() { ::close(fd_); }

bool FolderLock::IsAt(const std::filesystem::path& folder) const {
  struct stat held {
  }, named{};
  return ::fstat(fd_, &held) == 0 && ::stat(folder.c_str(), &named) == 0 && held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

}  // namespace fathom

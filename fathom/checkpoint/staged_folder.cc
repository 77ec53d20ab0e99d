#include "fathom/checkpoint/staged_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/progress.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

std::string Reason() { return std::strerror(errno); }

fs::path Hidden(const fs::path& folder, const char* suffix) {
  return folder.parent_path() / fmt::format(".{}{}", folder.filename().string(), suffix);
}

// Without a trailing slash, so that filename() and parent_path() are what they seem.
fs::path Normal(const fs::path& path) {
  fs::path normal = fs::absolute(path).lexically_normal();
  return normal.has_filename() ? normal : normal.parent_path();
}

// A place that cannot be written is a wrong input, as a wrong path is; a disk without room is not.
ErrorCode CodeOf(int error) { return error == ENOSPC || error == EDQUOT || error == EIO ? ErrorCode::kResource : ErrorCode::kInput; }

// With its parents; each folder that gets a new entry is synced.
void MakeFolder(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path, error)) return;
  MakeFolder(path.parent_path());
  fs::create_directory(path, error);
  if (error) Throw(CodeOf(error.value()), "{}: cannot create this folder: {}", path.string(), error.message());
  SyncDirectory(path.parent_path());
}

// Does the path still lead to the folder that was opened?
bool SameFolder(int fd, const fs::path& path) {
  struct stat opened {
  }, named{};
  if (::fstat(fd, &opened) != 0 || ::stat(path.c_str(), &named) != 0) return false;
  if (opened.st_dev == named.st_dev && opened.st_ino == named.st_ino) return true;
  errno = EWOULDBLOCK;
  return false;
}

void RemoveTree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) Throw(ErrorCode::kResource, "{}: cannot remove: {}", path.string(), error.message());
}

void RemoveBehind(const fs::path& folder, const fs::path& hidden) {
  RemoveTree(hidden);
  if (::rename(folder.c_str(), hidden.c_str()) != 0) Throw(ErrorCode::kResource, "{}: cannot remove: {}", folder.string(), Reason());
  RemoveTree(hidden);
}

void SyncFolders(const fs::path& root) {
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_directory()) SyncDirectory(entry.path());
  }
  SyncDirectory(root);
}

}  // namespace

StagedFolder::StagedFolder(const fs::path& target, bool overwrite, bool resumable)
    : target_(Normal(target)), stage_(Hidden(target_, ".partial")), overwrite_(overwrite), resumable_(resumable) {
  if (!overwrite && fs::exists(target_))
    Throw(ErrorCode::kUsage, "{}: exists already; choose another output or say overwrite=true", target_.string());
  MakeFolder(target_.parent_path());
  MakeFolder(stage_);
  Lock();
  if (resumable) return;
  for (const auto& left : fs::directory_iterator(stage_)) RemoveTree(left.path());
}

void StagedFolder::Lock() {
  lock_ = ::open(stage_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);  // what a link leads to is not ours to empty
  if (lock_ >= 0 && ::flock(lock_, LOCK_EX | LOCK_NB) == 0 && SameFolder(lock_, stage_)) return;
  const int cause = errno;
  if (lock_ >= 0) ::close(std::exchange(lock_, -1));
  Throw(CodeOf(cause), "{}: cannot start writing: {}", target_.string(),
        cause == EWOULDBLOCK ? "another process is writing it" : std::strerror(cause));
}

StagedFolder::~StagedFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  if (!resumable_) fs::remove_all(stage_, ignored);
  ::close(lock_);
}

void StagedFolder::Commit() {
  FATHOM_CHECK(lock_ >= 0, "committed twice");
  if (!SameFolder(lock_, stage_))
    Throw(ErrorCode::kResource, "{}: {} was removed while it was written", target_.string(), stage_.filename().string());
  SyncFolders(stage_);
  if (overwrite_ && ::renameat2(AT_FDCWD, stage_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) == 0) {
    SyncDirectory(target_.parent_path());
    RemoveBehind(stage_, Hidden(target_, ".removed"));  // the old content
  } else {
    if (overwrite_ && fs::exists(target_)) RemoveFolder(target_);
    if (::renameat2(AT_FDCWD, stage_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) != 0 &&
        (errno != EINVAL || ::rename(stage_.c_str(), target_.c_str()) != 0)) {
      Throw(ErrorCode::kResource, "{}: cannot rename {} to it: {}", target_.string(), stage_.filename().string(), Reason());
    }
    SyncDirectory(target_.parent_path());
  }
  ::close(std::exchange(lock_, -1));
}

void RemoveFolder(const fs::path& folder) { RemoveBehind(folder, Hidden(Normal(folder), ".removed")); }

void CheckFreeSpace(const fs::path& dir, int64_t bytes) {
  fs::path existing = Normal(dir);
  while (!fs::exists(existing) && existing.has_relative_path()) existing = existing.parent_path();
  std::error_code error;
  const auto space = fs::space(existing, error);
  if (!error && space.available < static_cast<uintmax_t>(bytes)) {
    Throw(ErrorCode::kResource, "{}: {} are needed, {} are free on this disk; free some or choose another output", dir.string(),
          FormatBytes(static_cast<double>(bytes)), FormatBytes(static_cast<double>(space.available)));
  }
}

}  // namespace fathom

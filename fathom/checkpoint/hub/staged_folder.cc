#include "fathom/checkpoint/hub/staged_folder.h"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "fathom/base/error.h"
#include "fathom/base/file.h"
#include "fathom/base/progress.h"
#include "fathom/base/pulse.h"
#include "fathom/base/system_error.h"

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

// With its parents; each folder that gets a new entry is synced.
void MakeFolder(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path, error)) return;
  MakeFolder(path.parent_path());
  fs::create_directory(path, error);
  if (error) Throw(CodeOfErrno(error.value()), "{}: cannot create this folder: {}", path.string(), error.message());
  SyncDirectory(path.parent_path());
}

// File by file, so that one who watches sees it get on: large ones take their time.
void RemoveTree(const fs::path& path) {
  std::error_code error, ignored;
  for (fs::recursive_directory_iterator it(path, ignored), end; !ignored && it != end; it.increment(ignored)) {
    if (it->symlink_status(error).type() != fs::file_type::directory) fs::remove(it->path(), error);
    Pulse::NoteBlock();
  }
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
  lock_.emplace(stage_, target_.string());
  if (resumable) return;
  for (const auto& left : fs::directory_iterator(stage_)) RemoveTree(left.path());
}

StagedFolder::~StagedFolder() {
  if (!lock_) return;
  std::error_code ignored;
  if (!resumable_) fs::remove_all(stage_, ignored);
}

bool StagedFolder::Exists(const fs::path& target) { return fs::exists(PathFor(target)); }

fs::path StagedFolder::PathFor(const fs::path& target) { return Hidden(Normal(target), ".partial"); }

void StagedFolder::Commit() {
  FATHOM_CHECK(lock_.has_value(), "committed twice");
  if (!lock_->IsAt(stage_))
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
  lock_.reset();
}

void RemoveFolder(const fs::path& folder) { RemoveBehind(folder, Hidden(Normal(folder), ".removed")); }

std::optional<uintmax_t> FreeSpace(const fs::path& dir) {
  fs::path existing = Normal(dir);
  while (!fs::exists(existing) && existing.has_relative_path()) existing = existing.parent_path();
  std::error_code error;
  const auto space = fs::space(existing, error);
  return error || space.capacity == 0 ? std::nullopt : std::optional(space.available);  // /proc and the like have no room to speak of
}

void CheckFreeSpace(const fs::path& dir, int64_t bytes) {
  const auto free = FreeSpace(dir);
  if (free && *free < static_cast<uintmax_t>(bytes)) {
    Throw(ErrorCode::kResource, "{}: {} are needed, {} are free on this disk; free some or choose another output", dir.string(),
          FormatBytes(static_cast<double>(bytes)), FormatBytes(static_cast<double>(*free)));
  }
}

}  // namespace fathom

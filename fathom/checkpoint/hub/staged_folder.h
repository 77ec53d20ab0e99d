// A folder that appears whole or not at all.
#pragma once

#include <filesystem>
#include <optional>

#include "fathom/base/folder_lock.h"

namespace fathom {

// Work happens in a hidden sibling ".<name>.partial"; Commit syncs it and renames it to the target. Dying in between, by an error or by
// kill -9, leaves the target as it was; what a killed process left behind is removed by the next one with the same target. A second
// process with the same target is refused while the first one works.
class StagedFolder {
 public:
  // Creates the parents and the staging folder. Throws Error(kUsage) if the target exists and overwrite is false, Error(kInput) if the
  // folder can't be made or another process stages the same target, Error(kResource) if the disk is full.
  // resumable: what an earlier process left in the staging folder stays, and so does what this one leaves without Commit.
  StagedFolder(const std::filesystem::path& target, bool overwrite, bool resumable = false);
  ~StagedFolder();  // removes the staging folder unless committed or resumable
  // Nothing in the staging folder is worth resuming: it goes, too.
  void Discard() { resumable_ = false; }
  // Does the target have a staging folder, of a process that works or has died?
  static bool Exists(const std::filesystem::path& target);
  // Where it is, for processes that help to fill it.
  static std::filesystem::path PathFor(const std::filesystem::path& target);
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::filesystem::path& path() const { return stage_; }
  const std::filesystem::path& target() const { return target_; }
  // Files written into path() must have been synced (OutputFile::Close does); folders are synced here. An existing target is exchanged in
  // one step and then removed. Throws Error(kResource).
  void Commit();

 private:
  std::filesystem::path target_, stage_;
  bool overwrite_, resumable_;
  std::optional<FolderLock> lock_;
};

// Removes a folder in two steps, a rename to a hidden name first, so that it never stands half-removed under its name. Throws
// Error(kResource).
void RemoveFolder(const std::filesystem::path& folder);

// Bytes that the file system of dir, or of its nearest existing parent, has for us; none: it does not say.
std::optional<uintmax_t> FreeSpace(const std::filesystem::path& dir);

// Throws Error(kResource) unless the file system of dir (or of its nearest existing parent) has `bytes` free.
void CheckFreeSpace(const std::filesystem::path& dir, int64_t bytes);

}  // namespace fathom

// One process at a time in a folder.
#pragma once

#include <filesystem>
#include <string>

namespace fathom {

// Holds the folder until it goes, or the process does. Not through a link: what a link leads to is not ours.
class FolderLock {
 public:
  // Throws Error(kInput), or Error(kResource) where a disk fails, beginning with `shown`: another process holds it, it cannot be opened.
  FolderLock(const std::filesystem::path& folder, const std::string& shown);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  // Does the path still lead to the folder that is held?
  bool IsAt(const std::filesystem::path& folder) const;

 private:
  int fd_;
};

}  // namespace fathom

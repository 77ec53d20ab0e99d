// Temporary files that must not outlive the process.
#pragma once

#include <sys/types.h>

#include <filesystem>

namespace fathom {

// A fresh folder below the system's one for temporary files (TMPDIR). A child process waits for this one to end, by whatever signal, and
// removes it: make it before the first thread. Throws Error(kResource): no such folder can be made, no child process.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();  // returns when the folder is gone
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int alive_ = -1;  // a pipe's end that closes with this process
  pid_t remover_ = -1;
};

}  // namespace fathom

// Files: mapped reading, writing beside and renaming. Every failure is an Error that names the path and the reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace fathom {

// A whole file mapped read-only. The mapping lives as long as the object.
class MappedFile {
 public:
  // Throws Error(kInput): absent, not a regular file, no permission, a Git LFS pointer.
  static std::shared_ptr<MappedFile> Open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that these bytes will not be needed again soon, so that they stop counting as resident.
  void DropPages(size_t offset, size_t length) const;

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, size_t size);
  std::filesystem::path path_;
  const std::byte* data_;
  size_t size_;
};

// A file read by position, from any thread. Unlike a mapping, a file that shrinks meanwhile is an error and not a signal.
class InputFile {
 public:
  // Throws Error(kInput): absent, not a regular file, no permission, a Git LFS pointer.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }
  // Fills bytes from offset on. Throws Error(kInput): the file ends before, or cannot be read.
  void ReadAt(uint64_t offset, std::span<std::byte> bytes) const;

 private:
  std::filesystem::path path_;
  int fd_;
  uint64_t size_ = 0;
};

// The whole file as text. Throws Error(kInput) if it can't be read or is larger than limit bytes.
std::string ReadTextFile(const std::filesystem::path& path, size_t limit = size_t{1} << 31);

// All of it, up to its end.
std::string ReadStandardInput();

// Throws Error(kInput) if a file that begins so is a Git LFS pointer: for readers that open files in another way.
void RefuseLfsPointer(const std::filesystem::path& path, std::string_view beginning);

// Writes path + ".tmp", syncs it, renames it to path: readers see the old or the new content, never a part.
// Throws Error(kResource).
void WriteFileAtomically(const std::filesystem::path& path, std::string_view content);

// For an output that a user names: "-" and "/dev/stdout" are standard output, a pipe or device is written in place, anything else
// goes through WriteFileAtomically. Throws Error(kResource).
void WriteOutput(const std::string& path, std::string_view content);

// For an output that a user names with a flag, before the work whose result it takes: throws Error(kUsage) where it is a folder or its
// folder is not there, Error(kResource) where that cannot be written.
void CheckOutput(const std::string& flag, const std::string& path);

// A file being written from front to back, never through a link of its name. Throws Error(kResource) with the path and the system's reason.
class OutputFile {
 public:
  enum class Mode {
    kCreate,    // empty, whatever was there
    kExisting,  // which another process has created
  };
  explicit OutputFile(const std::filesystem::path& path, Mode mode = Mode::kCreate);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  void Write(std::span<const std::byte> bytes);
  void Write(std::string_view text);
  // Positioned write, for streams that fill a file out of order.
  void WriteAt(uint64_t offset, std::span<const std::byte> bytes);
  // Up to here the file is there, as a hole where nothing is written.
  void Extend(uint64_t size);
  // Starts to write these bytes to disk and does not wait: the disk works while the processor computes what follows.
  void StartWriteback(uint64_t offset, uint64_t length) const;
  // Flushes to disk and closes; errors that only show then (disk full) are thrown here.
  void Close();

 private:
  std::filesystem::path path_;
  int fd_;
};

// A file without a name, for what does not fit into memory: its room is free again when it closes. From any thread; throws
// Error(kResource).
class ScratchFile {
 public:
  explicit ScratchFile(const std::filesystem::path& folder);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  void WriteAt(uint64_t offset, std::span<const std::byte> bytes);
  void ReadAt(uint64_t offset, std::span<std::byte> bytes) const;

 private:
  std::filesystem::path folder_;
  int fd_;
};

// Writes text to the end of a file that exists, not through a link, and syncs it. Throws Error(kResource).
void AppendToFile(const std::filesystem::path& path, std::string_view text);

// fsync on a directory, so that renames inside it survive a power cut.
void SyncDirectory(const std::filesystem::path& path);

}  // namespace fathom

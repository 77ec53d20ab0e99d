#include "fathom/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>

#include "fathom/base/error.h"
#include "fathom/base/pulse.h"

namespace fathom {
namespace {

std::string Reason() { return std::strerror(errno); }

// Of one call. Larger ones make the kernel cache the file in large blocks of memory, which a virtual machine often has to get from its host
// first: three to eight times the processor time was seen.
constexpr size_t kMostAtOnce = 128 << 10;

// Of one call too, so that one who watches (base/pulse.h) sees a slow disk's file move.
constexpr size_t kMostReadAtOnce = 8 << 20;
// What is synced at a time, for the same reason: the last sync finds little left to do.
constexpr off_t kSyncedAtOnce = 64 << 20;

constexpr std::string_view kLfsPointer = "version https://git-lfs.github.com/spec/";

void WriteAll(int fd, const std::filesystem::path& path, const std::byte* data, size_t size, off_t* offset) {
  while (size > 0) {
    const size_t most = std::min(size, kMostAtOnce);
    const ssize_t n = offset ? ::pwrite(fd, data, most, *offset) : ::write(fd, data, most);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) Throw(ErrorCode::kResource, "{}: cannot write: {}", path.string(), Reason());
    Pulse::NoteBlock();
    data += n;
    size -= static_cast<size_t>(n);
    if (offset) *offset += n;
  }
}

// Fills bytes from offset on; returns how many are missing because the file ends.
size_t ReadAll(int fd, const std::filesystem::path& path, uint64_t offset, std::span<std::byte> bytes, ErrorCode code) {
  while (!bytes.empty()) {
    const ssize_t n = ::pread(fd, bytes.data(), std::min(bytes.size(), kMostReadAtOnce), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) Throw(code, "{}: cannot read: {}", path.string(), Reason());
    if (n == 0) break;
    Pulse::NoteBlock();
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return bytes.size();
}

// Writes to disk what is in memory of the file, in parts; what goes wrong shows in the sync behind it.
void WriteBack(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return;
  for (off_t at = 0; at < info.st_size; at += kSyncedAtOnce) {
    ::sync_file_range(fd, at, kSyncedAtOnce, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
    Pulse::NoteBlock();
  }
}

bool Sync(int fd) {
  const Pulse::Outside waits;
  return ::fsync(fd) == 0;
}

// Where a file system (NFS) knows no files without a name, one whose name goes at once.
int OpenNameless(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
  std::string name = (folder / ".fathom-scratch-XXXXXX").string();
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) ::unlink(name.c_str());
  return named;
}

}  // namespace

// What `git clone` leaves in place of a large file when Git LFS is not installed or was told to skip it.
void RefuseLfsPointer(const std::filesystem::path& path, std::string_view beginning) {
  if (!beginning.starts_with(kLfsPointer)) return;
  Throw(ErrorCode::kInput, "{}: a Git LFS pointer, not the file itself; fetch it with `git lfs pull` (or download it again)",
        path.string());
}

MappedFile::MappedFile(std::filesystem::path path, const std::byte* data, size_t size) : path_(std::move(path)), data_(data), size_(size) {}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(const_cast<std::byte*>(data_), size_);
}

std::shared_ptr<MappedFile> MappedFile::Open(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) Throw(ErrorCode::kInput, "{}: cannot open: {}", path.string(), Reason());
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    Throw(ErrorCode::kInput, "{}: not a regular file", path.string());
  }
  const auto size = static_cast<size_t>(info.st_size);
  void* data = nullptr;
  if (size > 0) data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const std::string reason = Reason();
  ::close(fd);
  if (data == MAP_FAILED) Throw(ErrorCode::kResource, "{}: cannot map: {}", path.string(), reason);
  std::shared_ptr<MappedFile> file(new MappedFile(path, static_cast<const std::byte*>(data), size));
  RefuseLfsPointer(path, {static_cast<const char*>(data), std::min(size, kLfsPointer.size())});
  return file;
}

void MappedFile::DropPages(size_t offset, size_t length) const {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = (offset + page - 1) / page * page, end = std::min(size_, offset + length) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

InputFile::InputFile(const std::filesystem::path& path) : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (fd_ < 0) Throw(ErrorCode::kInput, "{}: cannot open: {}", path.string(), Reason());
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd_);
    Throw(ErrorCode::kInput, "{}: not a regular file", path.string());
  }
  size_ = static_cast<uint64_t>(info.st_size);
  std::array<char, kLfsPointer.size()> beginning;
  const size_t missing = ReadAll(fd_, path_, 0, std::as_writable_bytes(std::span(beginning)), ErrorCode::kInput);
  RefuseLfsPointer(path_, {beginning.data(), beginning.size() - missing});
}

InputFile::~InputFile() { ::close(fd_); }

void InputFile::ReadAt(uint64_t offset, std::span<std::byte> bytes) const {
  const size_t missing = ReadAll(fd_, path_, offset, bytes, ErrorCode::kInput);
  if (missing > 0) Throw(ErrorCode::kInput, "{}: ends {} bytes early: truncated, or changed while it was read", path_.string(), missing);
}

std::string ReadTextFile(const std::filesystem::path& path, size_t limit) {
  const auto file = MappedFile::Open(path);
  const auto bytes = file->bytes();
  if (bytes.size() > limit) Throw(ErrorCode::kInput, "{}: {} bytes, at most {} are allowed", path.string(), bytes.size(), limit);
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::string ReadStandardInput() {
  const Pulse::Outside waits;
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

OutputFile::OutputFile(const std::filesystem::path& path, Mode mode)
    : path_(path), fd_(::open(path.c_str(), (mode == Mode::kCreate ? O_CREAT | O_TRUNC : 0) | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644)) {
  if (fd_ < 0) Throw(ErrorCode::kResource, "{}: cannot {}: {}", path.string(), mode == Mode::kCreate ? "create" : "open", Reason());
}

void OutputFile::Extend(uint64_t size) {
  if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) Throw(ErrorCode::kResource, "{}: cannot write: {}", path_.string(), Reason());
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::Write(std::span<const std::byte> bytes) { WriteAll(fd_, path_, bytes.data(), bytes.size(), nullptr); }

void OutputFile::Write(std::string_view text) { Write(std::as_bytes(std::span(text))); }

void OutputFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  auto at = static_cast<off_t>(offset);
  WriteAll(fd_, path_, bytes.data(), bytes.size(), &at);
}

void OutputFile::StartWriteback(uint64_t offset, uint64_t length) const {
  ::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(length), SYNC_FILE_RANGE_WRITE);
}

void OutputFile::Close() {
  const int fd = std::exchange(fd_, -1);
  WriteBack(fd);
  const bool synced = Sync(fd);
  const std::string reason = Reason();
  if (::close(fd) != 0 || !synced) Throw(ErrorCode::kResource, "{}: cannot write: {}", path_.string(), reason);
}

void WriteFileAtomically(const std::filesystem::path& path, std::string_view content) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  OutputFile file(temporary);
  file.Write(content);
  file.Close();
  if (::rename(temporary.c_str(), path.c_str()) != 0) Throw(ErrorCode::kResource, "{}: cannot rename: {}", path.string(), Reason());
}

void WriteOutput(const std::string& path, std::string_view content) {
  const bool standard = path == "-" || path == "/dev/stdout";
  std::error_code ignored;
  const auto type = std::filesystem::status(path, ignored).type();
  if (!standard && (type == std::filesystem::file_type::regular || type == std::filesystem::file_type::not_found)) {
    return WriteFileAtomically(path, content);
  }
  const int fd = standard ? STDOUT_FILENO : ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) Throw(ErrorCode::kResource, "{}: cannot write: {}", path, Reason());
  const auto bytes = std::as_bytes(std::span(content));
  WriteAll(fd, path, bytes.data(), bytes.size(), nullptr);
  if (!standard) ::close(fd);
}

void CheckOutput(const std::string& flag, const std::string& path) {
  if (path == "-") return;
  std::error_code ignored;
  const std::filesystem::path parent = std::filesystem::path(path).parent_path(), folder = parent.empty() ? "." : parent;
  if (std::filesystem::is_directory(path, ignored)) Throw(ErrorCode::kUsage, "{}={}: a folder; name a file", flag, path);
  if (!std::filesystem::is_directory(folder, ignored))
    Throw(ErrorCode::kUsage, "{}={}: {} is no folder; make it first, or name another file", flag, path, folder.string());
  const bool special = std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored);
  if (::access(special ? path.c_str() : folder.c_str(), W_OK) != 0)
    Throw(ErrorCode::kResource, "{}={}: cannot write: {}", flag, path, Reason());
}

ScratchFile::ScratchFile(const std::filesystem::path& folder) : folder_(folder), fd_(OpenNameless(folder)) {
  if (fd_ < 0) Throw(ErrorCode::kResource, "{}: cannot create a scratch file: {}", folder.string(), Reason());
}

ScratchFile::~ScratchFile() { ::close(fd_); }

void ScratchFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  auto at = static_cast<off_t>(offset);
  WriteAll(fd_, folder_, bytes.data(), bytes.size(), &at);
}

void ScratchFile::ReadAt(uint64_t offset, std::span<std::byte> bytes) const {
  const size_t missing = ReadAll(fd_, folder_, offset, bytes, ErrorCode::kResource);
  FATHOM_CHECK(missing == 0, "{} bytes read behind the end of a scratch file", missing);
}

void AppendToFile(const std::filesystem::path& path, std::string_view text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) Throw(ErrorCode::kResource, "{}: cannot open: {}", path.string(), Reason());
  const std::unique_ptr<const int, void (*)(const int*)> close(&fd, [](const int* open) { ::close(*open); });
  const auto bytes = std::as_bytes(std::span(text));
  WriteAll(fd, path, bytes.data(), bytes.size(), nullptr);
  if (!Sync(fd)) Throw(ErrorCode::kResource, "{}: cannot write: {}", path.string(), Reason());
}

void SyncDirectory(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) Throw(ErrorCode::kResource, "{}: cannot open: {}", path.string(), Reason());
  Sync(fd);
  ::close(fd);
}

}  // namespace fathom

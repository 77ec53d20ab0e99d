#include "fathom/base/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fathom/base/error.h"

namespace fathom {

SharedMemory::SharedMemory(int file, size_t size, bool writable) : file_(file), size_(size) {
  void* data = ::mmap(nullptr, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file, 0);
  if (data != MAP_FAILED) data_ = static_cast<std::byte*>(data);
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) ::munmap(data_, size_);
  CloseHandle();
}

std::shared_ptr<SharedMemory> SharedMemory::Create(size_t size) {
  const int file = ::memfd_create("fathom", MFD_CLOEXEC);
  if (file < 0) Throw(ErrorCode::kResource, "cannot create memory that ranks share: {}", std::strerror(errno));
  // Taken at once: where it were missing later there would be a signal in place of an error.
  const int failed = ::posix_fallocate(file, 0, static_cast<off_t>(size));
  std::shared_ptr<SharedMemory> memory(new SharedMemory(file, size, true));
  if (failed != 0 || memory->data_ == nullptr)
    Throw(ErrorCode::kResource, "{} bytes of memory that ranks share: {}", size, std::strerror(failed != 0 ? failed : errno));
  return memory;
}

std::shared_ptr<const SharedMemory> SharedMemory::Open(const Handle& handle) {
  const std::string path = fmt::format("/proc/{}/fd/{}", handle.process, handle.file);
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    Throw(ErrorCode::kResource, "{}: memory that another rank of this machine shares cannot be opened: {}; start all ranks as one user",
          path, std::strerror(errno));
  }
  std::shared_ptr<SharedMemory> memory(new SharedMemory(file, static_cast<size_t>(handle.size), false));
  if (memory->data_ == nullptr) Throw(ErrorCode::kResource, "{}: cannot be mapped: {}", path, std::strerror(errno));
  memory->CloseHandle();
  return memory;
}

SharedMemory::Handle SharedMemory::handle() const { return {::getpid(), file_, static_cast<int64_t>(size_)}; }

void SharedMemory::CloseHandle() {
  if (file_ >= 0) ::close(file_);
  file_ = -1;
}

}  // namespace fathom

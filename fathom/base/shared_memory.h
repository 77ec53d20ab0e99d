// Memory that several processes of one machine see: it has no name, and is gone with the last of them, however they end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace fathom {

class SharedMemory {
 public:
  // How another process of the same user finds it.
  struct Handle {
    int64_t process = 0, file = -1, size = 0;
  };

  // Zeros, more than 0 bytes of them. Throws Error(kResource).
  static std::shared_ptr<SharedMemory> Create(size_t size);
  // What a process has created whose handle is not closed yet; nobody writes to it any more. Throws Error(kResource).
  static std::shared_ptr<const SharedMemory> Open(const Handle& handle);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  std::span<std::byte> bytes() { return {data_, size_}; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  Handle handle() const;
  // No others will open it; who has done so keeps it.
  void CloseHandle();

 private:
  SharedMemory(int file, size_t size, bool writable);
  int file_;
  std::byte* data_ = nullptr;
  size_t size_;
};

}  // namespace fathom

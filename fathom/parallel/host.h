// Ranks of one machine, and what only one of them does for all.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>

#include "fathom/base/shared_memory.h"
#include "fathom/parallel/comm.h"

namespace fathom {

// Equal where processes see each other's numbers: one kernel, one table of processes.
uint64_t MachineId();

// The ranks of this one's machine; collective.
Comm HostPart(const Comm& world);

// Overwrites bytes, as many on every rank, with those of the first rank of the group; collective.
void BytesFromFirst(const Comm& comm, std::span<std::byte> bytes);

// What `make` gives on the first rank of the group, on all of them; collective. An Error that it throws there all of them throw. The
// others wait, as long as it takes.
std::string TextFromFirst(const Comm& comm, const std::function<std::string()>& make);

// The same of a plain value.
template <class T, class F>
T ValueFromFirst(const Comm& comm, const F& make) {
  T value = T();
  const std::string bytes = TextFromFirst(comm, [&] {
    const T made = make();
    return std::string(reinterpret_cast<const char*>(&made), sizeof(T));
  });
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// `work` on the first rank alone; the others go on when it is done, or throw its Error.
void DoOnFirst(const Comm& comm, const std::function<void()>& work);

// Memory that the first rank of a machine's has filled, without a copy; null: it gives none. Collective.
std::shared_ptr<const SharedMemory> MemoryFromFirst(const Comm& host, const std::function<std::shared_ptr<SharedMemory>()>& make);

}  // namespace fathom

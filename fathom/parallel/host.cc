#include "fathom/parallel/host.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "fathom/base/error.h"

namespace fathom {

void BytesFromFirst(const Comm& comm, std::span<std::byte> bytes) {
  std::vector<Outgoing> out;
  for (int r = 1; r < comm.size(); ++r) out.push_back({r, bytes});
  const Incoming in{0, bytes};
  if (comm.rank() == 0) return comm.Exchange(out, {});
  comm.Exchange({}, {&in, 1});
}

uint64_t MachineId() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  struct stat table = {};
  ::stat("/proc/self/ns/pid", &table);
  return std::hash<std::string>()(id) ^ (static_cast<uint64_t>(table.st_ino) << 1);
}

Comm HostPart(const Comm& world) {
  if (world.size() == 1) return {};
  struct stat users = {};
  ::stat("/proc/self/ns/user", &users);  // memory of others opens within one namespace and for one user
  const std::string mine = fmt::format("{} {} {}", MachineId(), users.st_ino, ::geteuid());
  const std::vector<std::string> machines = AllGatherText(world, mine);
  std::vector<int> ranks;
  for (int r = 0; r < world.size(); ++r) {
    if (machines[static_cast<size_t>(r)] == mine) ranks.push_back(r);
  }
  return world.Part(ranks);
}

std::string TextFromFirst(const Comm& comm, const std::function<std::string()>& make) {
  if (comm.size() == 1) return make();
  std::string text;
  std::array<int64_t, 2> head = {};  // an error's code, the text's length
  if (comm.rank() == 0) {
    try {
      text = make();
    } catch (const Error& error) {
      head[0] = static_cast<int64_t>(error.code());
      text = error.what();
    }
    head[1] = std::ssize(text);
  }
  BytesFromFirst(comm, std::as_writable_bytes(std::span(head)));
  text.resize(static_cast<size_t>(head[1]));
  BytesFromFirst(comm, BytesOf(std::span(text)));
  if (head[0] != 0) throw Error(static_cast<ErrorCode>(head[0]), text);
  return text;
}

void DoOnFirst(const Comm& comm, const std::function<void()>& work) {
  TextFromFirst(comm, [&] {
    work();
    return std::string();
  });
}

std::shared_ptr<const SharedMemory> MemoryFromFirst(const Comm& host, const std::function<std::shared_ptr<SharedMemory>()>& make) {
  std::shared_ptr<SharedMemory> mine;
  const auto handle = ValueFromFirst<SharedMemory::Handle>(host, [&] {
    mine = make();
    return mine ? mine->handle() : SharedMemory::Handle();
  });
  if (handle.size == 0) return nullptr;
  const std::shared_ptr<const SharedMemory> memory = mine ? mine : SharedMemory::Open(handle);
  host.Barrier();
  if (mine) mine->CloseHandle();
  return memory;
}

}  // namespace fathom

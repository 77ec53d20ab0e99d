#include "fathom/data/shared_ids.h"

#include <algorithm>

namespace fathom {
namespace {

std::shared_ptr<SharedMemory> Pack(const IdLists& lists) {
  std::vector<int64_t> head = {std::ssize(lists)};
  int64_t end = 0;
  for (const auto& list : lists) head.push_back(end += std::ssize(list));
  auto memory = SharedMemory::Create(head.size() * sizeof(int64_t) + static_cast<size_t>(end) * sizeof(int32_t));
  auto at = std::ranges::copy(std::as_bytes(std::span(head)), memory->bytes().begin()).out;
  for (const auto& list : lists) at = std::ranges::copy(std::as_bytes(std::span(list)), at).out;
  return memory;
}

}  // namespace

SharedIds::SharedIds(std::shared_ptr<const SharedMemory> memory) : memory_(std::move(memory)) {
  const std::span<const std::byte> bytes = memory_->bytes();
  const auto* head = reinterpret_cast<const int64_t*>(bytes.data());
  ends_ = {head + 1, static_cast<size_t>(head[0])};
  ids_ = {reinterpret_cast<const int32_t*>(head + 1 + head[0]), ends_.empty() ? 0 : static_cast<size_t>(ends_.back())};
}

SharedIds SharedIds::FromFirst(const Comm& host, const std::function<IdLists()>& make) {
  return SharedIds(MemoryFromFirst(host, [&] { return Pack(make()); }));
}

IdLists IdsFromFirst(const Comm& host, const std::function<IdLists()>& make) {
  if (host.size() == 1) return make();
  const SharedIds shared = SharedIds::FromFirst(host, make);
  IdLists lists;
  for (size_t i = 0; i < shared.size(); ++i) lists.emplace_back(shared[i].begin(), shared[i].end());
  return lists;
}

}  // namespace fathom

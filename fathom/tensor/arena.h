// Scratch and activation memory: one reservation of address space, handed out in stack order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "fathom/tensor/view.h"

namespace fathom {

// Allocates by moving an offset; frees by moving it back (ArenaScope). The address range is reserved at construction and
// takes memory only where it is touched, so after the first step nothing is allocated from the system any more.
class Arena {
 public:
  // Counts only: allocations are addresses without memory, spans excepted; to plan memory under a PlanScope.
  static Arena Counting();
  // Under a PlanScope it counts only, whatever the capacity.
  explicit Arena(int64_t capacity_bytes);
  ~Arena();
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&&) = delete;

  // Uninitialised, aligned to 64 bytes. Throws Error(kResource) beyond the capacity.
  View Alloc(DType dtype, Shape shape);
  template <class T>
  T* AllocArray(int64_t n) {
    return reinterpret_cast<T*>(AllocBytes(n * static_cast<int64_t>(sizeof(T))));
  }
  // For lists that code on one thread reads and writes: real even if the arena counts, and zeroed then. Nobody calls destructors.
  template <class T>
  std::span<T> AllocSpan(int64_t n) {
    static_assert(std::is_trivially_destructible_v<T>);
    std::byte* first = AllocBytes(n * static_cast<int64_t>(sizeof(T)));
    if (counting()) first = RealList(first, n * static_cast<int64_t>(sizeof(T)));
    return {reinterpret_cast<T*>(first), static_cast<size_t>(n)};
  }
  std::byte* AllocBytes(int64_t bytes);

  bool counting() const { return counting_; }
  int64_t used() const { return used_; }
  int64_t peak() const { return peak_; }
  int64_t capacity() const { return capacity_; }
  void Release(int64_t mark);

 private:
  struct List {
    int64_t begin;
    std::unique_ptr<std::byte, void (*)(void*)> data;
  };
  Arena() = default;
  void Count();
  std::byte* RealList(const std::byte* counted, int64_t bytes);

  std::byte* base_ = nullptr;
  bool counting_ = false;
  int64_t capacity_ = 0, used_ = 0, peak_ = 0;
  std::vector<List> lists_;  // of a counting arena
};

// Gives back everything allocated since construction.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.used()) {}
  ~ArenaScope() { arena_.Release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  int64_t mark_;
};

}  // namespace fathom

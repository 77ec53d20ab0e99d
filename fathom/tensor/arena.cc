#include "fathom/tensor/arena.h"

#include <sys/mman.h>

#include <cstdlib>
#include <utility>

#include "fathom/base/plan_scope.h"

namespace fathom {
namespace {
constexpr int64_t kAlignment = 64;
constexpr int64_t kMostCounted = int64_t{1} << 54;
}  // namespace

Arena Arena::Counting() {
  Arena arena;
  arena.Count();
  return arena;
}

void Arena::Count() {
  counting_ = true;
  capacity_ = kMostCounted;
  base_ = reinterpret_cast<std::byte*>(PlanScope::kNowhere);
}

Arena::Arena(int64_t capacity_bytes) : capacity_(capacity_bytes) {
  if (PlanScope::Active()) {
    Count();
    return;
  }
  void* p =
      ::mmap(nullptr, static_cast<size_t>(capacity_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) Throw(ErrorCode::kResource, "out of memory: cannot reserve {} bytes for activations", capacity_bytes);
  ::madvise(p, static_cast<size_t>(capacity_bytes), MADV_HUGEPAGE);  // a head's rows lie pages apart: 10 % of attention's time; a hint only
  base_ = static_cast<std::byte*>(p);
}

Arena::~Arena() {
  if (base_ != nullptr && !counting_) ::munmap(base_, static_cast<size_t>(capacity_));
}

Arena::Arena(Arena&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      counting_(other.counting_),
      capacity_(other.capacity_),
      used_(other.used_),
      peak_(other.peak_),
      lists_(std::move(other.lists_)) {}

std::byte* Arena::AllocBytes(int64_t bytes) {
  FATHOM_CHECK(bytes >= 0, "{} bytes", bytes);
  const int64_t begin = used_;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (used_ > peak_) peak_ = used_;
  if (used_ > capacity_) {
    used_ = begin;
    Throw(ErrorCode::kResource, "activation memory: {} bytes asked beyond the {} planned", bytes, capacity_);
  }
  return base_ + begin;
}

View Arena::Alloc(DType dtype, Shape shape) { return View(AllocBytes(shape.NumElements() * DTypeSize(dtype)), dtype, shape); }

void Arena::Release(int64_t mark) {
  FATHOM_CHECK(mark <= used_, "mark {} beyond {}", mark, used_);
  used_ = mark;
  while (!lists_.empty() && lists_.back().begin >= mark) lists_.pop_back();
}

std::byte* Arena::RealList(const std::byte* counted, int64_t bytes) {
  auto* data = static_cast<std::byte*>(std::calloc(static_cast<size_t>(bytes) + 1, 1));  // not touched before it is written
  if (data == nullptr) Throw(ErrorCode::kResource, "out of memory: {} bytes for planning", bytes);
  lists_.push_back({counted - base_, {data, std::free}});
  return data;
}

}  // namespace fathom

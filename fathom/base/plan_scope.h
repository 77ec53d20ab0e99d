// Planning by the code itself: it runs without its work, so that what it would allocate can be counted (train/memory.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom {

// While one lives, on this thread: parallel loops (base/threads.h) run nothing, NumThreads() is `threads`, and tensors and arenas get
// addresses without memory (tensor/). Kernels do their work in parallel loops and decide by shapes alone, so a pass takes the branches of
// the real one. Lists that code divides its work by (Arena::AllocSpan) are real, and zero.
class PlanScope {
 public:
  // What a pass takes depends on what a router says: of all that it may say, the most; or what it says if it spreads its rows evenly.
  enum class Rows { kMost, kEven };
  explicit PlanScope(int threads, Rows rows = Rows::kMost);
  ~PlanScope();
  PlanScope(const PlanScope&) = delete;
  PlanScope& operator=(const PlanScope&) = delete;

  static bool Active() { return Threads() > 0; }
  static int Threads();  // 0: none lives on this thread
  static bool IsEven();
  // An address of its own for so many bytes; touching it is a fault. Those of arenas begin at kNowhere, where no system hands out any.
  static std::byte* Address(int64_t bytes);
  static constexpr uint64_t kNowhere = uint64_t{1} << 55;

 private:
  int outer_threads_;
  Rows outer_rows_;
};

}  // namespace fathom

#include "fathom/base/plan_scope.h"

#include "fathom/base/error.h"

namespace fathom {
namespace {

// The innermost scope's threads, and the first address that none has given out.
thread_local int planned_threads = 0;
thread_local PlanScope::Rows planned_rows = PlanScope::Rows::kMost;
thread_local uint64_t next_address = PlanScope::kNowhere;

}  // namespace

PlanScope::PlanScope(int threads, Rows rows) : outer_threads_(planned_threads), outer_rows_(planned_rows) {
  FATHOM_CHECK(threads > 0, "{} threads", threads);
  if (planned_threads == 0) next_address = kNowhere;
  planned_threads = threads;
  planned_rows = rows;
}

PlanScope::~PlanScope() {
  planned_threads = outer_threads_;
  planned_rows = outer_rows_;
}

int PlanScope::Threads() { return planned_threads; }
bool PlanScope::IsEven() { return planned_threads > 0 && planned_rows == Rows::kEven; }

std::byte* PlanScope::Address(int64_t bytes) {
  const uint64_t address = next_address;
  next_address += (static_cast<uint64_t>(bytes) + 64) / 64 * 64;
  return reinterpret_cast<std::byte*>(address);
}

}  // namespace fathom

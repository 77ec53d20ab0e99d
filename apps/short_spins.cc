#include "apps/short_spins.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "fathom/base/env.h"
#include "fathom/base/threads.h"
#include "fathom/machine/cpu_quota.h"

namespace fathom {

void StartOverWithShortSpins(char** argv) {
  if (GetEnv("GOMP_SPINCOUNT") || GetEnv("OMP_WAIT_POLICY")) return;
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  // Waking many threads takes longer than waking a few.
  const char* spins = UsableCores() <= 8 ? "2000" : "10000";
  if (error || ::setenv("GOMP_SPINCOUNT", spins, 1) != 0) return;
  UnbindThread();  // the new start would take this thread's one place for all that there are
  ::execv(self.c_str(), argv);
}

}  // namespace fathom

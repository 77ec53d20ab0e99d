// How much memory this process may still take.
#pragma once

#include <cstdint>
#include <filesystem>

namespace fathom {

// The least of what the machine has available (page cache that it can drop included) and what each control group around this process
// leaves, version 1 or 2. The paths are those of the system, or of a test's copy.
int64_t FreeMemoryBytes(const std::filesystem::path& proc = "/proc", const std::filesystem::path& cgroups = "/sys/fs/cgroup");

// Throws Error(kResource) if a limit on the address space (ulimit -v) leaves too little for so many threads and the libraries: they end the
// process where they find out themselves.
void CheckAddressSpace(int threads);

}  // namespace fathom

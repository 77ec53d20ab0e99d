#include "fathom/machine/numa.h"

#include <dlfcn.h>

#include "fathom/base/error.h"

namespace fathom {
namespace {

void* Symbol(void* library, const char* name) {
  void* symbol = ::dlsym(library, name);
  if (symbol == nullptr) Throw(ErrorCode::kResource, "numa: libnuma has no {}; numa=off goes without it", name);
  return symbol;
}

}  // namespace

void SetNumaPolicy(const std::string& policy, const std::string& library) {
  if (policy == "off") return;
  void* numa = ::dlopen(library.c_str(), RTLD_NOW);  // stays open: the policy is the process's
  if (numa == nullptr)
    Throw(ErrorCode::kResource, "numa={}: {} cannot be opened (apt-get install libnuma1); numa=off goes without it", policy, library);
  if (reinterpret_cast<int (*)()>(Symbol(numa, "numa_available"))() < 0)
    Throw(ErrorCode::kResource, "numa={}: this system has no memory policies; numa=off goes without them", policy);
  if (policy == "local") return reinterpret_cast<void (*)()>(Symbol(numa, "numa_set_localalloc"))();
  void* all_nodes = *static_cast<void**>(Symbol(numa, "numa_all_nodes_ptr"));
  reinterpret_cast<void (*)(void*)>(Symbol(numa, "numa_set_interleave_mask"))(all_nodes);
}

}  // namespace fathom

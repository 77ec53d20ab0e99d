#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <filesystem>

#include "fathom/base/env.h"
#include "fathom/base/error.h"
#include "fathom/parallel/transport.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;
constexpr const char *kLibrary = "libfathom_mpi.so", *kEntry = "FathomOpenMpi";

// How many processes the launcher says that it has started; 0: it does not say.
int LaunchedRanks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"}) {
    if (const auto value = GetEnv(name)) return std::atoi(value->c_str());
  }
  return 0;
}

fs::path FindLibrary() {
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  const std::array places = {folder / kLibrary, folder.parent_path() / "lib" / kLibrary};
  for (const fs::path& place : places) {
    if (fs::exists(place, error)) return place;
  }
  Throw(ErrorCode::kUsage, "{}: not there: ranks need it; build fathom where an MPI is installed (Debian: libopenmpi-dev)",
        places[0].string());
}

}  // namespace

bool StartedAsRank() { return LaunchedRanks() > 0 || GetEnv("PMIX_RANK").has_value(); }

std::shared_ptr<Transport> OpenMpi() {
  const fs::path library = FindLibrary();
  // MPI's own plugins look for its symbols among the global ones. The library is never closed.
  void* handle = ::dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  void* entry = handle == nullptr ? nullptr : ::dlsym(handle, kEntry);
  if (entry == nullptr) Throw(ErrorCode::kUsage, "{}: cannot be loaded: {}", library.string(), ::dlerror());
  std::shared_ptr<Transport> transport(reinterpret_cast<Transport* (*)()>(entry)());
  if (const int launched = LaunchedRanks(); launched > 0 && launched != transport->size()) {
    Throw(ErrorCode::kUsage, "{}: it sees {} ranks where {} were started: it was built for another MPI than this mpirun's",
          library.string(), transport->size(), launched);
  }
  if (!transport->SeveralThreads())
    Throw(ErrorCode::kUsage, "{}: its MPI offers no MPI_THREAD_MULTIPLE, which ranks need", library.string());
  return transport;
}

}  // namespace fathom

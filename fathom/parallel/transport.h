// What a backend has to do for the ranks of a job; parallel/comm.h makes everything else of it.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace fathom {

struct Outgoing {
  int to;
  std::span<const std::byte> bytes;
};
struct Incoming {
  int from;
  std::span<std::byte> bytes;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Sends and receives all of these and returns when all of it is done. Messages between two ranks, none of which is this one itself,
  // arrive in the order in which both name them, over all calls.
  virtual void Exchange(std::span<const Outgoing> out, std::span<const Incoming> in) = 0;
  // Waits until every rank has called it, up to so many seconds; false: not all have, and none may call it again.
  virtual bool Meet(double seconds) = 0;
  // Ends every rank of the job, this one with the code.
  [[noreturn]] virtual void Abort(int code) = 0;
};

// Was this process started as one of several (mpirun, srun with PMI)?
bool StartedAsRank();

// The MPI backend, a library of its own beside the program (libfathom_mpi.so): the program starts where there is no MPI. Throws
// Error(kUsage): it isn't there, or it is for another MPI than the one that started this process.
std::shared_ptr<Transport> OpenMpi();

}  // namespace fathom

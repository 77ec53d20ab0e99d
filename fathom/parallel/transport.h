// What a backend has to do for the ranks of a job; parallel/comm.h makes everything else of it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
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

// Threads of a rank talk to other ranks apart from each other, each in a channel of its own.
enum class Channel : int { kMain, kLayers, kRows, kSaving };
inline constexpr size_t kChannels = 4;

class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Sends and receives all of these and returns when all of it is done. Messages between two ranks, none of which is this one itself,
  // arrive in the order in which both name them, over all calls in the channel. A channel is one thread's at a time.
  virtual void Exchange(Channel channel, std::span<const Outgoing> out, std::span<const Incoming> in) = 0;
  // Waits until every rank has called it, up to so many seconds; false: not all have, and none may call it again.
  virtual bool Meet(double seconds) = 0;

  // May threads call at the same time, each in its channel?
  virtual bool SeveralThreads() const { return false; }
  // Small news of one size, sent now and then and read without waiting, by a thread of their own.
  virtual void Tell(int /*to*/, std::span<const std::byte> /*news*/) {}
  // The newest that has arrived since the last call; false: none.
  virtual bool Hear(int /*from*/, std::span<std::byte> /*news*/) { return false; }
  // Parts of messages that have gone through so far: a long exchange gets on as long as this grows.
  int64_t parts() const { return parts_.load(std::memory_order_relaxed); }

  // Ends every rank of the job, this one with the code.
  [[noreturn]] virtual void Abort(int code) = 0;

 protected:
  std::atomic<int64_t> parts_ = 0;
};

// Was this process started as one of several (mpirun, srun with PMI)?
bool StartedAsRank();

// The MPI backend, a library of its own beside the program (libfathom_mpi.so): the program starts where there is no MPI. Throws
// Error(kUsage): it isn't there, or it is for another MPI than the one that started this process.
std::shared_ptr<Transport> OpenMpi();

}  // namespace fathom

// The library that ranks load: the only source that sees MPI. It throws nothing; an error of MPI's ends the job.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "fathom/parallel/transport.h"

namespace fathom {
namespace {

constexpr int64_t kLongestMessage = int64_t{1} << 30;  // MPI counts in int
constexpr int kTag = 1;

class MpiTransport final : public Transport {
 public:
  MpiTransport() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_dup(MPI_COMM_WORLD, &data_);
    MPI_Comm_dup(MPI_COMM_WORLD, &meeting_);
    MPI_Comm_rank(data_, &rank_);
    MPI_Comm_size(data_, &size_);
  }
  ~MpiTransport() override { MPI_Finalize(); }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void Exchange(std::span<const Outgoing> out, std::span<const Incoming> in) override {
    requests_.clear();
    for (const Incoming& message : in) {
      InParts(message.bytes,
              [&](std::byte* data, int count) { MPI_Irecv(data, count, MPI_BYTE, message.from, kTag, data_, &requests_.emplace_back()); });
    }
    for (const Outgoing& message : out) {
      InParts(message.bytes, [&](const std::byte* data, int count) {
        MPI_Isend(data, count, MPI_BYTE, message.to, kTag, data_, &requests_.emplace_back());
      });
    }
    MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE);
  }

  bool Meet(double seconds) override {
    MPI_Request request;
    MPI_Ibarrier(meeting_, &request);
    const auto start = std::chrono::steady_clock::now();
    for (int all = 0;;) {
      MPI_Test(&request, &all, MPI_STATUS_IGNORE);
      if (all != 0) return true;
      if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > seconds) return false;
      ::usleep(1000);
    }
  }

  [[noreturn]] void Abort(int code) override {
    MPI_Abort(MPI_COMM_WORLD, code);
    ::_exit(code);
  }

 private:
  template <class Byte, class F>
  static void InParts(std::span<Byte> bytes, const F& f) {
    for (int64_t at = 0; at < std::ssize(bytes); at += kLongestMessage)
      f(bytes.data() + at, static_cast<int>(std::min(kLongestMessage, std::ssize(bytes) - at)));
  }

  MPI_Comm data_, meeting_;
  int rank_ = 0, size_ = 1;
  std::vector<MPI_Request> requests_;
};

}  // namespace
}  // namespace fathom

extern "C" fathom::Transport* FathomOpenMpi() { return new fathom::MpiTransport; }

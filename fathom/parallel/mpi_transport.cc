// The library that ranks load: the only source that sees MPI. It throws nothing; an error of MPI's ends the job.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "fathom/parallel/transport.h"

namespace fathom {
namespace {

constexpr int64_t kLongestMessage = int64_t{1} << 23;  // what is longer goes in parts, so that others see it move
constexpr size_t kNews = 256;                          // bytes, at most
// Between looks at messages beside the main thread's, which needs the core: a tenth of what has been waited at first, then a thousandth, so
// that who waits for long does next to nothing.
constexpr auto kNap = std::chrono::microseconds(30), kLongNap = std::chrono::microseconds(200),
               kLongestNap = std::chrono::microseconds(1000);

class MpiTransport final : public Transport {
 public:
  MpiTransport() {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
    several_threads_ = provided == MPI_THREAD_MULTIPLE;
    for (MPI_Comm* comm : {&data_, &meeting_, &news_}) MPI_Comm_dup(MPI_COMM_WORLD, comm);
    MPI_Comm_rank(data_, &rank_);
    MPI_Comm_size(data_, &size_);
    heard_.resize(static_cast<size_t>(size_));
    told_.resize(static_cast<size_t>(size_));
  }
  ~MpiTransport() override {
    for (News& news : heard_) GiveUp(news.request);
    for (News& news : told_) GiveUp(news.request);
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  bool SeveralThreads() const override { return several_threads_; }

  void Exchange(Channel channel, std::span<const Outgoing> out, std::span<const Incoming> in) override {
    const int tag = static_cast<int>(channel);
    std::vector<MPI_Request>& requests = requests_[static_cast<size_t>(tag)];
    requests.clear();
    for (const Incoming& message : in) {
      InParts(message.bytes,
              [&](std::byte* data, int count) { MPI_Irecv(data, count, MPI_BYTE, message.from, tag, data_, &requests.emplace_back()); });
    }
    for (const Outgoing& message : out) {
      InParts(message.bytes, [&](const std::byte* data, int count) {
        MPI_Isend(data, count, MPI_BYTE, message.to, tag, data_, &requests.emplace_back());
      });
    }
    Await(requests, channel == Channel::kMain);
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

  // One message at a time is under way to each rank: what can't be sent yet is not news any more when it can.
  void Tell(int to, std::span<const std::byte> news) override {
    News& told = told_[static_cast<size_t>(to)];
    if (told.request != MPI_REQUEST_NULL && !Done(told.request)) return;
    std::memcpy(told.bytes.data(), news.data(), news.size());
    MPI_Isend(told.bytes.data(), static_cast<int>(news.size()), MPI_BYTE, to, 0, news_, &told.request);
  }

  bool Hear(int from, std::span<std::byte> news) override {
    News& heard = heard_[static_cast<size_t>(from)];
    const auto listen = [&] { MPI_Irecv(heard.bytes.data(), kNews, MPI_BYTE, from, 0, news_, &heard.request); };
    if (heard.request == MPI_REQUEST_NULL) listen();
    bool any = false;
    for (; Done(heard.request); any = true) {
      std::memcpy(news.data(), heard.bytes.data(), news.size());
      listen();
    }
    return any;
  }

  [[noreturn]] void Abort(int code) override {
    MPI_Abort(MPI_COMM_WORLD, code);
    ::_exit(code);
  }

 private:
  struct News {
    std::array<std::byte, kNews> bytes;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  template <class Byte, class F>
  static void InParts(std::span<Byte> bytes, const F& f) {
    for (int64_t at = 0; at < std::ssize(bytes); at += kLongestMessage)
      f(bytes.data() + at, static_cast<int>(std::min(kLongestMessage, std::ssize(bytes) - at)));
  }

  // The main thread has nothing else to do, and waits as MPI does.
  void Await(std::vector<MPI_Request>& requests, bool main) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const int count = static_cast<int>(requests.size());
    std::vector<int> done(requests.size());
    for (int left = count; left > 0;) {
      int some = 0;
      if (main) {
        MPI_Waitsome(count, requests.data(), &some, done.data(), MPI_STATUSES_IGNORE);
      } else {
        MPI_Testsome(count, requests.data(), &some, done.data(), MPI_STATUSES_IGNORE);
        const auto waited = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start);
        const auto nap = std::max(std::clamp(waited / 10, kNap, kLongNap), std::clamp(waited / 1000, kNap, kLongestNap));
        if (some == 0) std::this_thread::sleep_for(nap);
      }
      parts_.fetch_add(some, std::memory_order_relaxed);
      left -= some;
    }
  }

  static bool Done(MPI_Request& request) {
    int done = 0;
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    return done != 0;
  }
  static void GiveUp(MPI_Request& request) {
    if (request == MPI_REQUEST_NULL) return;
    MPI_Cancel(&request);
    MPI_Request_free(&request);
  }

  MPI_Comm data_, meeting_, news_;
  int rank_ = 0, size_ = 1;
  bool several_threads_ = false;
  std::array<std::vector<MPI_Request>, kChannels> requests_;  // by channel
  std::vector<News> heard_, told_;                            // by rank
};

}  // namespace
}  // namespace fathom

extern "C" fathom::Transport* FathomOpenMpi() { return new fathom::MpiTransport; }

#include "fathom/parallel/watch.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>

#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/parallel/host.h"

namespace fathom {
namespace {

constexpr double kTick = 0.5;            // seconds between news
constexpr int kGrace = 300;              // milliseconds in which one that has ended may have said why, and its launcher has seen it first
constexpr int64_t kForever = 1LL << 60;  // ticks

Peer ThisProcess() {
  Peer peer;
  ::gethostname(peer.host, sizeof(peer.host) - 1);
  peer.pid = ::getpid();
  peer.machine = MachineId();
  return peer;
}

std::vector<Peer> ListPeers(const Comm& world) {
  const Peer mine = ThisProcess();
  std::vector<Peer> peers(static_cast<size_t>(world.size()));
  std::vector<std::span<std::byte>> parts;
  for (Peer& peer : peers) parts.push_back(BytesOf(std::span(&peer, 1)));
  world.AllGather(BytesOf(std::span<const Peer>(&mine, 1)), parts);
  return peers;
}

template <class T>
std::span<std::byte> Bytes(T& x) {
  return BytesOf(std::span(&x, 1));
}

}  // namespace

Watch::Watch(std::shared_ptr<Transport> transport, const Comm& world, const Pulse& pulse, double patience,
             std::function<void(End how, const std::string& message)> end)
    : transport_(std::move(transport)),
      pulse_(pulse),
      peers_(ListPeers(world)),
      patience_(patience),
      vigil_(world.rank(), world.size(), patience > 0 ? static_cast<int64_t>(patience / kTick) : kForever),
      end_(std::move(end)),
      stop_(::eventfd(0, EFD_CLOEXEC)) {
  const Peer& mine = peers_[static_cast<size_t>(world.rank())];
  for (int r = 0; r < world.size(); ++r) {
    const Peer& peer = peers_[static_cast<size_t>(r)];
    if (r == world.rank() || peer.machine != mine.machine) continue;
    const auto fd = static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(peer.pid), 0));
    if (fd >= 0) beside_.emplace_back(r, fd);
  }
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are the main thread's
  thread_ = std::thread([this] { Run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Watch::~Watch() {
  const uint64_t one = 1;
  if (::write(stop_, &one, sizeof(one)) == sizeof(one)) thread_.join();
  ::close(stop_);
  for (const auto& [rank, fd] : beside_) ::close(fd);
}

void Watch::Run() {
  std::vector<pollfd> waits = {{stop_, POLLIN, 0}};
  for (const auto& [rank, fd] : beside_) waits.push_back({fd, POLLIN, 0});
  for (;;) {
    const int ready = ::poll(waits.data(), waits.size(), static_cast<int>(1e3 * kTick));
    if (waits[0].revents != 0) return;
    if (ready == 0) Tick();
    std::vector<int> gone;
    for (size_t i = 1; i < waits.size(); ++i) {
      if (waits[i].revents != 0) gone.push_back(beside_[i - 1].first);
    }
    if (!gone.empty()) return CheckPeers(gone);
  }
}

// A long exchange moves though the thread that waits for it does not.
PulseReading Watch::Own() const {
  PulseReading own = pulse_.Read();
  own.beats += transport_->parts();
  return own;
}

void Watch::Listen() {
  const bool first = transport_->rank() == 0;
  for (int r = first ? 1 : 0; r < (first ? transport_->size() : 1); ++r) {
    PulseReading news;
    if (transport_->Hear(r, Bytes(news))) vigil_.Hear(r, news);
  }
}

void Watch::Tick() {
  PulseReading own = Own();
  for (int r = transport_->rank() == 0 ? 1 : 0; r < (transport_->rank() == 0 ? transport_->size() : 1); ++r)
    transport_->Tell(r, Bytes(own));
  Listen();
  if (const auto alarm = vigil_.Tick(own)) end_(End::kAbort, Explain(*alarm));
}

// The first of those that are left on this machine says it.
void Watch::CheckPeers(const std::vector<int>& gone) {
  ::usleep(1000 * kGrace);
  Listen();
  const int rank = gone.front();
  bool speaks = vigil_.last(rank).activity != Activity::kFailed && pulse_.Read().activity != Activity::kFailed;
  for (const auto& [other, fd] : beside_) speaks &= other > transport_->rank() || std::ranges::find(gone, other) != gone.end();
  end_(End::kLeave, !speaks ? ""
                            : fmt::format("{} has ended without a word (killed, or out of memory: the system's log may say so) while this "
                                          "one was at {}; the job ends, and the same command goes on from the last checkpoint",
                                          NameOf(rank), Describe(Own())));
}

std::string Watch::NameOf(int rank) const {
  const Peer& peer = peers_[static_cast<size_t>(rank)];
  return fmt::format("rank {} on {} (process {})", rank, peer.host, peer.pid);
}

std::string Watch::Explain(const Alarm& alarm) const {
  const std::string name = NameOf(alarm.rank), at = Describe(alarm.last);
  switch (alarm.kind) {
    case Alarm::kStuck:
      return fmt::format("{} has not got on for {:.0f} s; it is at {}", name, patience_, at);
    case Alarm::kSilent:
      return fmt::format("{} has not been heard of for {:.0f} s: stopped, or its machine cannot be reached; it was at {}", name, patience_,
                         at);
    case Alarm::kDeadlock:
      break;
  }
  std::string all;
  for (int r = 0; r < std::min(transport_->size(), 8); ++r)
    all += fmt::format("{}rank {} at {}", r == 0 ? "" : "; ", r, Describe(vigil_.last(r)));
  return fmt::format("all ranks have waited for each other for {:.0f} s: {}", patience_, all);
}

}  // namespace fathom

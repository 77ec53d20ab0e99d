#include "fathom/parallel/watch.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>

#include "fathom/base/clock.h"
#include "fathom/base/error.h"
#include "fathom/parallel/host.h"

namespace fathom {
namespace {

constexpr int64_t kForever = 1LL << 50;  // ticks
// Of a core's time; a rank that uses more makes an effort. A thread that looks for messages now and then uses less.
constexpr double kEffort = 0.05;
constexpr int kRepeat = 20;  // milliseconds between words about why the job ends

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

double SecondsOf(clockid_t clock) {
  timespec t = {};
  ::clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Pages and blocks that came from disks or went there.
int64_t DiskBlocks(int who) {
  rusage usage = {};
  ::getrusage(who, &usage);
  return usage.ru_majflt + usage.ru_inblock + usage.ru_oublock;
}

int64_t TicksOf(const Watch::Times& times) { return times.patience > 0 ? static_cast<int64_t>(times.patience / times.tick) : kForever; }

}  // namespace

Peer ThisProcess() {
  Peer peer;
  ::gethostname(peer.host, sizeof(peer.host) - 1);
  peer.pid = ::getpid();
  peer.machine = MachineId();
  return peer;
}

Watch::Watch(std::shared_ptr<Transport> transport, const Comm& world, const Pulse& pulse, Times times,
             std::function<void(const std::string& line)> say, std::function<void(End how)> end)
    : transport_(std::move(transport)),
      pulse_(pulse),
      peers_(ListPeers(world)),
      times_(times),
      say_(std::move(say)),
      end_(std::move(end)),
      stop_(::eventfd(0, EFD_CLOEXEC)),
      vigil_(world.rank(), world.size(), TicksOf(times)),
      words_(peers_.size()),
      gone_(peers_.size()) {
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
    const int ready = ::poll(waits.data(), waits.size(), static_cast<int>(1e3 * times_.tick));
    if (waits[0].revents != 0) return;
    if (ready == 0) Tick();
    std::vector<int> gone;
    for (size_t i = 1; i < waits.size(); ++i) {
      if (waits[i].revents != 0) gone.push_back(beside_[i - 1].first);
    }
    if (!gone.empty()) return CheckPeers(gone);
  }
}

bool Watch::Stopped(double seconds) const {
  pollfd stop = {stop_, POLLIN, 0};
  return ::poll(&stop, 1, static_cast<int>(1e3 * seconds)) > 0;
}

// A long exchange moves though the thread that waits for it does not.
PulseReading Watch::Own() const {
  PulseReading own = pulse_.Read();
  own.beats += transport_->parts();
  return own;
}

// Of all threads but this one.
int64_t Watch::Effort() const {
  const double seconds = SecondsOf(CLOCK_PROCESS_CPUTIME_ID) - SecondsOf(CLOCK_THREAD_CPUTIME_ID);
  const double unit = kEffort * (times_.patience > 0 ? times_.patience : 1);
  return static_cast<int64_t>(seconds / unit) + DiskBlocks(RUSAGE_SELF) - DiskBlocks(RUSAGE_THREAD);
}

void Watch::Listen(int rank) {
  News news;
  if (!transport_->Hear(rank, Bytes(news))) return;
  vigil_.Hear(rank, news.reading);
  words_[static_cast<size_t>(rank)] = news.word;
}

void Watch::Tell(int rank) {
  News news{Own(), word_};
  if (!gone_[static_cast<size_t>(rank)]) transport_->Tell(rank, Bytes(news));
}

void Watch::TellAll() {
  for (int r = 0; r < transport_->size(); ++r) {
    if (r != transport_->rank()) Tell(r);
  }
}

void Watch::Tick() {
  std::optional<Alarm> alarm;
  {
    const std::scoped_lock lock(news_);
    const bool first = transport_->rank() == 0;
    for (int r = first ? 1 : 0; r < (first ? transport_->size() : 1); ++r) {
      Tell(r);
      Listen(r);
    }
    alarm = vigil_.Tick(Own(), Effort());
  }
  if (alarm) Raise(*alarm);
}

// One that has spoken is heard by those who want to; of those who want to, the lowest does.
bool Watch::AnotherSpeaks() {
  for (int r = 0; r < transport_->size(); ++r) {
    if (r == transport_->rank()) continue;
    Listen(r);
    const Word word = words_[static_cast<size_t>(r)];
    if (word == Word::kSaid || (word == Word::kWanted && r < transport_->rank() && !gone_[static_cast<size_t>(r)])) return true;
  }
  return false;
}

bool Watch::Say(const std::string& line) {
  const std::scoped_lock lock(news_);
  if (word_ == Word::kSaid) return false;
  word_ = Word::kWanted;
  const Stopwatch clock;
  do {
    TellAll();
    ::usleep(1000 * kRepeat);
    if (AnotherSpeaks()) return false;
  } while (clock.Seconds() < times_.grace);
  word_ = Word::kSaid;
  TellAll();
  say_(line);
  return true;
}

void Watch::Raise(const Alarm& alarm) {
  if (!Say(fmt::format("fathom: error: {}\n", Explain(alarm))) && Stopped(times_.last_word)) return;
  end_(End::kAbort);
}

// Those that are left on this machine see it; one that fails itself says that.
void Watch::CheckPeers(const std::vector<int>& gone) {
  {
    const std::scoped_lock lock(news_);
    for (const int r : gone) gone_[static_cast<size_t>(r)] = true;
    for (const int r : gone) Listen(r);
  }
  const int rank = gone.front();
  if (pulse_.Read().activity != Activity::kFailed && vigil_.last(rank).activity != Activity::kFailed) {
    Say(
        fmt::format("fathom: error: {} has ended without a word (killed, or out of memory: the system's log may say so) while this one was "
                    "at {}; the job "
                    "ends, and the same command goes on from the last checkpoint\n",
                    NameOf(rank), Describe(Own())));
  } else if (Stopped(times_.grace)) {
    return;
  }
  end_(End::kLeave);
}

std::string Watch::NameOf(int rank) const {
  const Peer& peer = peers_[static_cast<size_t>(rank)];
  return fmt::format("rank {} on {} (process {})", rank, peer.host, peer.pid);
}

std::string Watch::Explain(const Alarm& alarm) const {
  const std::string name = NameOf(alarm.rank), at = Describe(alarm.last);
  const double seconds = static_cast<double>(alarm.ticks) * times_.tick;
  switch (alarm.kind) {
    case Alarm::kStuck:
      return fmt::format("{} has not got on for {:.0f} s; it is at {}", name, seconds, at);
    case Alarm::kBusy:
      return fmt::format("{} has used its cores for {:.0f} s and not got on; it is at {}", name, seconds, at);
    case Alarm::kSilent:
      return fmt::format("{} has not been heard of for {:.0f} s: stopped, or its machine cannot be reached; it was at {}", name, seconds,
                         at);
    case Alarm::kDeadlock:
      break;
  }
  std::string all;
  for (int r = 0; r < std::min(transport_->size(), 8); ++r)
    all += fmt::format("{}rank {} at {}", r == 0 ? "" : "; ", r, Describe(vigil_.last(r)));
  return fmt::format("all ranks have waited for each other for {:.0f} s: {}", seconds, all);
}

}  // namespace fathom

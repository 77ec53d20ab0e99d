#include "apps/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <optional>
#include <sstream>

#include "fathom/base/error.h"
#include "fathom/base/log.h"
#include "fathom/checkpoint/hub/train_state.h"
#include "fathom/parallel/mesh.h"
#include "fathom/train/options.h"

namespace fathom {
namespace {

constexpr int kNoLauncher = 127;

std::vector<std::string> Split(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// In the child, which never returns. The job has a group of its own: a terminal's Ctrl-C is for this process, which hands it on.
[[noreturn]] void Become(const std::vector<std::string>& words) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  ::dup2(::open("/dev/null", O_RDONLY), 0);
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  const std::string why =
      fmt::format("fathom: error: {}: cannot be started: {}; launcher= says how ranks are\n", words[0], std::strerror(errno));
  [[maybe_unused]] const auto written = ::write(2, why.data(), why.size());
  ::_exit(kNoLauncher);
}

// Signals that ask to stop, for as long as this lives; read instead of delivered.
class StopRequests {
 public:
  StopRequests() {
    sigemptyset(&mine_);
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGHUP}) sigaddset(&mine_, signal);
    sigprocmask(SIG_BLOCK, &mine_, &before_);
    fd_ = ::signalfd(-1, &mine_, SFD_CLOEXEC);
  }
  ~StopRequests() {
    ::close(fd_);
    sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  StopRequests(const StopRequests&) = delete;
  StopRequests& operator=(const StopRequests&) = delete;
  int fd() const { return fd_; }
  int Take() const {
    signalfd_siginfo info;
    return ::read(fd_, &info, sizeof(info)) == sizeof(info) ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  sigset_t mine_, before_;
  int fd_;
};

// The exit code of a process that runs `words`, and the signal that this process got meanwhile: the first asks the job to save and stop,
// the next one ends it.
struct Ended {
  int code = 0, signal = 0;
};
Ended RunJob(const std::vector<std::string>& words) {
  const StopRequests requests;
  const pid_t job = ::fork();
  if (job < 0) Throw(ErrorCode::kResource, "{}: cannot be started: {}", words[0], std::strerror(errno));
  if (job == 0) Become(words);
  Ended ended;
  const auto job_fd = static_cast<int>(::syscall(SYS_pidfd_open, job, 0));
  pollfd waits[] = {{job_fd, POLLIN, 0}, {requests.fd(), POLLIN, 0}};
  while (::poll(waits, 2, -1) < 0 || waits[0].revents == 0) {
    if (waits[1].revents == 0) continue;
    const int signal = requests.Take();
    ::kill(job, ended.signal == 0 ? SIGUSR1 : SIGTERM);  // launchers hand the first on to all ranks, and end them for the other
    ended.signal = signal;
  }
  ::close(job_fd);
  int status = 0;
  ::waitpid(job, &status, 0);
  ended.code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return ended;
}

class Job {
 public:
  Job(const std::string& command, const std::vector<std::string>& arguments, const RunConfig& config)
      : config_(config), ranks_(RanksToStart(config)), launcher_(Split(config.String("launcher"))) {
    program_ = Split(command);
    program_.insert(program_.begin(), std::filesystem::read_symlink("/proc/self/exe").string());
    program_.insert(program_.end(), arguments.begin(), arguments.end());
    program_.insert(program_.end(), {"ranks=mpi", "restart="});
    if (config.String("restart").empty()) return;
    folder_ = ReadTrainOptions(config).checkpoints_dir();
    if (!Fewer(ranks_)) {
      Throw(ErrorCode::kUsage,
            "restart=auto: no number of ranks below ranks={} fits the mesh and divides {} rows; give an axis -1, or another "
            "per_device_batch_size",
            ranks_, Rows("per_device_batch_size"));
    }
  }

  int Run() {
    std::optional<Ended> failure;
    for (int64_t ranks = ranks_;;) {
      const auto before = LatestStep();
      const Ended ended = RunJob(Words(ranks));
      if (ended.signal != 0) return ended.code == 128 + SIGUSR1 ? 128 + ended.signal : ended.code;
      if (folder_.empty() || !MayGoOn(ended.code, failure.has_value())) return failure && ended.code != 0 ? failure->code : ended.code;
      const auto fewer = Fewer(ranks);
      const bool refused = ended.code == static_cast<int>(ErrorCode::kUsage), stands_still = failure && !refused && LatestStep() == before;
      if (!failure || !refused) failure = ended;
      if (!fewer || stands_still) return GiveUp(*failure, ranks, stands_still);
      spdlog::warn("restart=auto: the job on {} ranks has ended with {}; {} go on {}", ranks, ended.code, *fewer, Where());
      ranks = *fewer;
    }
  }

 private:
  std::vector<std::string> Words(int64_t ranks) const {
    std::vector<std::string> words = launcher_;
    for (std::string& word : words) {
      if (const size_t at = word.find("{n}"); at != word.npos) word.replace(at, 3, std::to_string(ranks));
    }
    words.insert(words.end(), program_.begin(), program_.end());
    for (const std::string& flag : RowFlags()) {
      if (ranks != ranks_) words.push_back(fmt::format("{}={}", flag, Rows(flag) / static_cast<double>(ranks)));
    }
    return words;
  }

  // A rank that died, hung or was lost; not what would come again (bad flags, files, a full disk), nor what somebody wanted. A mesh that a
  // smaller job refuses is no reason to end it.
  bool MayGoOn(int code, bool again) const {
    if (code == static_cast<int>(ErrorCode::kUsage)) return again;
    if (code == 0 || code == kNoLauncher || code == static_cast<int>(ErrorCode::kInput) || code == static_cast<int>(ErrorCode::kResource))
      return false;
    for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGPIPE}) {
      if (code == 128 + signal) return false;
    }
    return true;
  }

  // Flags that say rows of a rank.
  std::vector<std::string> RowFlags() const {
    std::vector<std::string> flags = {"per_device_batch_size"};
    if (config_.Float("eval_per_device_batch_size") > 0) flags.push_back("eval_per_device_batch_size");
    if (config_.Bool("enable_rampup_batch_size"))
      flags.insert(flags.end(), {"per_device_batch_size_start", "per_device_batch_size_increment"});
    return flags;
  }
  // Of all ranks together, whatever their number.
  double Rows(const std::string& flag) const { return config_.Float(flag) * static_cast<double>(ranks_); }

  // The most ranks below `ranks` that the mesh and the batch allow.
  std::optional<int64_t> Fewer(int64_t ranks) const {
    while (--ranks > 0) {
      const bool divides = std::ranges::all_of(RowFlags(), [&](const std::string& flag) {
        const double each = Rows(flag) / static_cast<double>(ranks);
        return each == static_cast<double>(static_cast<int64_t>(each));
      });
      if (!divides) continue;
      try {
        ReadMesh(config_, static_cast<int>(ranks));
        return ranks;
      } catch (const Error&) {  // this number does not fit
      }
    }
    return std::nullopt;
  }

  std::optional<int64_t> LatestStep() const { return folder_.empty() ? std::nullopt : fathom::LatestStep(folder_); }
  std::string Where() const {
    const auto step = LatestStep();
    return step ? fmt::format("from step {}", *step) : "from the start";
  }
  static int GiveUp(const Ended& failure, int64_t ranks, bool stands_still) {
    spdlog::error("restart=auto: the job on {} ranks has ended with {}, and {}", ranks, failure.code,
                  stands_still ? "it had not come to another checkpoint" : "no smaller number of ranks fits");
    return failure.code;
  }

  const RunConfig& config_;
  int64_t ranks_;
  std::vector<std::string> launcher_, program_;
  std::filesystem::path folder_;  // of the checkpoints; empty: a job that fails is not started again
};

}  // namespace

int64_t RanksToStart(const RunConfig& config) {
  const std::string& text = config.String("ranks");
  if (text.empty() || text == "mpi") return 0;
  int64_t ranks = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ranks);
  if (error != std::errc() || end != text.data() + text.size() || ranks < 1)
    Throw(ErrorCode::kUsage, "ranks={}: mpi, or how many processes are to be started", text);
  return ranks;
}

int LaunchRanks(const std::string& command, const std::vector<std::string>& arguments, const RunConfig& config) {
  return Job(command, arguments, config).Run();
}

}  // namespace fathom

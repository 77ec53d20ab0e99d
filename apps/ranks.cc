#include "apps/ranks.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <limits>
#include <thread>
#include <vector>

#include "fathom/base/error.h"
#include "fathom/base/log.h"

namespace fathom {
namespace {

// What ranks that find the same fault may be apart.
constexpr double kTogether = 3;  // seconds

void Explain(const std::string& message) {
  if (message.empty()) return;
  std::fputs(message.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

void Ranks::Join(bool several) {
  if (several && transport_ == nullptr) {
    transport_ = OpenMpi();
    world_ = Comm(transport_);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a launcher that dies takes its ranks with it
    noted_.emplace(pulse_);
  }
  if (!is_first()) spdlog::set_level(spdlog::level::off);  // one of them speaks for all
}

void Ranks::Watch(double patience) {
  if (world_.size() == 1) return;
  const auto end = [transport = transport_](fathom::Watch::End how) {
    if (how == fathom::Watch::End::kAbort) transport->Abort(static_cast<int>(ErrorCode::kFailed));
    ::_exit(static_cast<int>(ErrorCode::kFailed));
  };
  watch_ = std::make_unique<fathom::Watch>(transport_, world_, pulse_, fathom::Watch::Times{patience}, Explain, end);
}

// Until all have come here each is watched: one that others still need may hang.
Ranks::~Ranks() {
  if (watch_ == nullptr || ended_) return;
  Pulse::At(Activity::kEnding);
  Pulse::Waiting(true);
  transport_->Meet(std::numeric_limits<double>::infinity());
  EndTogether(false);
}

// Some ranks may have ended well.
bool Ranks::EndTogether(bool failed) {
  std::vector<int64_t> who(static_cast<size_t>(world_.size()));
  who[static_cast<size_t>(world_.rank())] = failed ? 1 : 0;
  world_.AllSum(std::span(who));
  ended_ = true;
  return std::ranges::find(who, 1) - who.begin() == world_.rank();
}

void Ranks::Fail(int code, const std::string& message) {
  if (world_.size() == 1) return Explain(message);
  Pulse::At(Activity::kFailed);
  if (transport_->Meet(kTogether)) {
    if (EndTogether(true)) Explain(message);
    return;
  }
  if (watch_ == nullptr) {
    Explain(message);
  } else if (!watch_->Say(message)) {
    std::this_thread::sleep_for(std::chrono::duration<double>(kTogether));  // another rank says why, and ends the job
  }
  transport_->Abort(code);
}

}  // namespace fathom

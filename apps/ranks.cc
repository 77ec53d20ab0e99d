#include "apps/ranks.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <limits>

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
  watch_ = std::make_unique<fathom::Watch>(transport_, world_, pulse_, patience,
                                           [transport = transport_](fathom::Watch::End how, const std::string& message) {
                                             if (!message.empty()) Explain(fmt::format("fathom: error: {}\n", message));
                                             if (how == fathom::Watch::End::kAbort) transport->Abort(static_cast<int>(ErrorCode::kFailed));
                                             ::_exit(static_cast<int>(ErrorCode::kFailed));
                                           });
}

// Until all have come here each is watched: one that others still need may hang.
Ranks::~Ranks() {
  if (watch_ == nullptr) return;
  Pulse::At(Activity::kEnding);
  Pulse::Waiting(true);
  transport_->Meet(std::numeric_limits<double>::infinity());
}

void Ranks::Fail(int code, const std::string& message) {
  if (world_.size() == 1) return Explain(message);
  Pulse::At(Activity::kFailed);
  if (transport_->Meet(kTogether)) {
    if (is_first()) Explain(message);
    return;
  }
  Explain(message);
  transport_->Abort(code);
}

}  // namespace fathom

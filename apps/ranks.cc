#include "apps/ranks.h"

#include <sys/prctl.h>

#include <csignal>
#include <cstdio>

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
  }
  if (!is_first()) spdlog::set_level(spdlog::level::off);  // one of them speaks for all
}

void Ranks::Fail(int code, const std::string& message) {
  if (world_.size() == 1) return Explain(message);
  if (transport_->Meet(kTogether)) {
    if (is_first()) Explain(message);
    return;
  }
  Explain(message);
  transport_->Abort(code);
}

}  // namespace fathom

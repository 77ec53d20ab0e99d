#include "fathom/train/signals.h"

#include <csignal>

namespace fathom {
namespace {

constexpr size_t kStackBytes = 1 << 16;  // the frame of a signal holds all vector registers

// A signal handler can reach nothing but a global; this is the only one of the program.
volatile std::sig_atomic_t g_received = 0;

void Handle(int signal) {
  g_received = signal;
  std::signal(signal, SIG_DFL);
}

}  // namespace

StopSignals::StopSignals() : stack_(kStackBytes) {
  g_received = 0;
  const stack_t stack{.ss_sp = stack_.data(), .ss_flags = 0, .ss_size = stack_.size()};
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_handler = Handle;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

StopSignals::~StopSignals() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
  sigaltstack(&none, nullptr);
}

int StopSignals::received() const { return g_received; }

}  // namespace fathom

#include "fathom/train/signals.h"

#include <csignal>

#include "fathom/base/signal_stack.h"

namespace fathom {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGUSR1, SIGPIPE};

// A signal handler can reach nothing but a global.
volatile std::sig_atomic_t g_received = 0;

void Handle(int signal) {
  g_received = signal;
  std::signal(signal, signal == SIGPIPE ? SIG_IGN : SIG_DFL);  // a pipe stays broken: saving must get past its next line
}

}  // namespace

StopSignals::StopSignals() {
  g_received = 0;
  UseSignalStack();
  struct sigaction action = {};
  action.sa_handler = Handle;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

StopSignals::~StopSignals() {
  for (const int signal : kSignals) std::signal(signal, SIG_DFL);
}

int StopSignals::received() const { return g_received; }

}  // namespace fathom

#include "fathom/train/signals.h"

#include <csignal>

namespace fathom {
namespace {

// A signal handler can reach nothing but a global; this is the only one of the program.
volatile std::sig_atomic_t g_received = 0;

void Handle(int signal) {
  g_received = signal;
  std::signal(signal, SIG_DFL);
}

}  // namespace

StopSignals::StopSignals() {
  g_received = 0;
  std::signal(SIGINT, Handle);
  std::signal(SIGTERM, Handle);
}

StopSignals::~StopSignals() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

int StopSignals::received() const { return g_received; }

}  // namespace fathom

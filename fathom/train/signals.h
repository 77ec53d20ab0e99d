// Ctrl-C, SIGTERM, SIGUSR1 (which mpirun hands on to its ranks) and a log that nobody reads any more (SIGPIPE) ask a run to save and stop;
// a second one of the first three kills it.
#pragma once

namespace fathom {

// The handler has a stack of its own in the calling thread (base/signal_stack.h), which gets the process's signals as long as it does not
// block them.
class StopSignals {
 public:
  StopSignals();   // takes over SIGINT, SIGTERM, SIGUSR1 and SIGPIPE
  ~StopSignals();  // gives them back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  // The signal that came, 0: none. The exit code of a run that it stopped is 128 plus this.
  int received() const;
};

}  // namespace fathom

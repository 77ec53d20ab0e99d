// Ctrl-C, SIGTERM and a log that nobody reads any more (SIGPIPE) ask a run to save and stop; a second one of the first two kills it.
#pragma once

namespace fathom {

// The handler has a stack of its own in the calling thread (base/signal_stack.h), which gets the process's signals as long as it does not
// block them.
class StopSignals {
 public:
  StopSignals();   // takes over SIGINT, SIGTERM and SIGPIPE
  ~StopSignals();  // gives them back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  // The signal that came, 0: none. The exit code of a run that it stopped is 128 plus this.
  int received() const;
};

}  // namespace fathom

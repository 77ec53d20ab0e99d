// Ctrl-C and SIGTERM ask a run to save and stop; a second one kills it.
#pragma once

#include <cstddef>
#include <vector>

namespace fathom {

// The handler has a stack of its own in the calling thread, which gets the process's signals as long as it does not block them. Inside
// oneDNN's products the stack pointer lies in the heap (seen in a sixth of the samples of a training run): a signal's frame would overwrite
// what is there.
class StopSignals {
 public:
  StopSignals();   // takes over SIGINT and SIGTERM
  ~StopSignals();  // gives them back
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  // The signal that came, 0: none. The exit code of a run that it stopped is 128 plus this.
  int received() const;

 private:
  std::vector<std::byte> stack_;
};

}  // namespace fathom
